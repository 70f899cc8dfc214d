"""Korean translations for ``pabal demo``: its live view, its lines, its summary, and its reports."""

from __future__ import annotations

from pabal.demo import errors as demo
from pabal.errors import PabalError

_WORDS = {
    "ticks": "틱",
    "candles": "캔들",
    "trades": "체결",
    "signals": "신호",
    "orders": "주문",
    "rejected": "거절",
    "fills": "체결",
    "positions": "포지션",
    "positions, candles": "포지션, 캔들",
    "reads": "읽는 것",
    "handled": "처리",
    "retried": "재시도",
    "per second": "초당",
    "p50 ms": "p50(ms)",
    "p99 ms": "p99(ms)",
    "events in the log": "로그의 이벤트",
    "symbol": "종목",
    "held": "보유량",
    "average price": "평균 단가",
    "last price": "현재가",
    "profit (paper money)": "손익(모의 자금)",
    "starting": "시작 중",
    "catching up": "따라잡는 중",
    "playing": "재생 중",
    "draining": "마무리 중",
    "finished": "완료",
    "retry": "재시도",
    "DEAD LETTER": "데드 레터",
    "none": "없음",
    "{number} event": "이벤트 {number}개",
    "{number} attempt": "{number}번 시도",
    "{number} retry": "재시도 {number}",
    "{number} dead letter": "데드 레터 {number}",
    "{seconds} s": "{seconds}초",
}

_LINES = {
    "SIMULATED tape (seed {seed}), no real market": "모의 테이프(시드 {seed}), 실제 시장 아님",
    "recorded {kind}: {tape}": "기록된 {kind}: {tape}",
    "log {path}, process {process}; if interrupted: {resume}": "로그 {path}, 프로세스 {process}. 중단되면 이어 가기: {resume}",
    "{phase}: {fed} of {length} events, {rate}/s; lag: {lags}; {retries}, {letters}": "{phase}: 이벤트 {length}개 중 {fed}개, 초당 {rate}개; 지연: {lags}; {retries}, {letters}",
    "{fed} of {length} events": "이벤트 {length}개 중 {fed}개",
    "{rate}/s": "초당 {rate}개",
    "try it: ": "해 보기: ",
    ", then: ": ", 그다음: ",
    "Stopped; all published events are stored. Continue with: {resume}": "멈췄습니다. 발행된 것은 저장되어 있습니다. 이어 가기: {resume}",
    "{text} is neither a positive number of events per second nor 'max'": "{text}: 초당 이벤트 수(양수)나 'max'를 쓰세요",
    "--resume continues an old run, --new starts a new one; use one of them": "--resume은 옛 실행을 이어 가고 --new는 새로 시작합니다. 하나만 쓰세요",
}

_SUMMARY = {
    "a SIMULATED tape": "모의 테이프",
    "Played {what} in {seconds} s.": "재생: {what}, {seconds}초.",
    "Resumed after {events} of the tape. The counts and times below are of this process only.": "테이프의 {events} 뒤에서 이어 갔습니다. 처리, 재시도, 시간은 이 프로세스만의 것입니다.",
    "profit and loss {profit} in paper money: realized {realized}, unrealized {unrealized}, fees {fees}": "손익(모의 자금) {profit}: 실현 {realized}, 미실현 {unrealized}, 수수료 {fees}",
    "dead letter: {subscription} gave up {event} after {attempts}: {error}": "데드 레터: {subscription}, {attempts} 뒤 포기: {event}: {error}",
    "the demo put this event there to show it": "데모가 보여 주려고 넣은 이벤트",
    "result {result}: the same for each run of this tape, however often it is killed and resumed": "결과 {result}: 몇 번을 죽이고 이어 가도 이 테이프의 결과는 같습니다",
    "log    {file}, {events}, durability {durability}": "로그 {file}, {events}, durability {durability}",
    "paced; --speed max removes the limit": "속도 제한 있음. --speed max로 해제",
    "as fast as possible": "최대 속도",
    "nothing was left to handle": "처리할 것이 남지 않음",
    "deliveries to subscriptions": "구독에 전달한 횟수",
    "failed attempts, retried": "실패하여 다시 시도한 횟수",
    "kept as dead letters": "포기하여 보관한 전달",
    "events/s": "초당 이벤트",
    "publish → handled": "발행 → 처리",
    "waits for retries included": "재시도 대기 포함",
}

DEMO = {**_WORDS, **_LINES, **_SUMMARY}

DEMO_SAID = {
    "trades": "체결",
    "candles": "캔들",
    "{path}, line {line}, column {column}": "{path}, {line}행, {column} 열",
    "{path}, line {line}": "{path}, {line}행",
    "there is nothing to resume; start without --resume": "이어 갈 것이 없습니다. --resume 없이 시작하세요",
    "its run was started without it; leave --{name} out to resume it": "이 실행은 --{name} 없이 시작했습니다. --{name}을(를) 빼고 이어 가세요",
    "its run was started with {option} {value}; leave --{name} out to resume it": "이 실행은 {option} {value}로 시작했습니다. --{name}을(를) 빼고 이어 가세요",
    "this file holds a finished run. For a new run choose another --file": "이 파일에는 끝난 실행이 있습니다. 새로 실행하려면 --file로 다른 파일을 고르세요",
    "this file holds an unfinished run; add --resume to continue it. For a new run choose another --file": "이 파일에는 끝나지 않은 실행이 있습니다. --resume을 붙여 이어 가거나, 새로 실행하려면 --file로 다른 파일을 고르세요",
    "there is an unfinished run. Continue it: {resume}. Or start a new one beside it: {new}": "끝나지 않은 실행이 있습니다. 이어 가기: {resume}. 그 옆에 새로 시작하기: {new}",
    "another process is playing this file; wait until it has finished, or choose another --file": "다른 프로세스가 이 파일을 재생하고 있습니다. 끝나기를 기다리거나 --file로 다른 파일을 고르세요",
    "this log begins with {event_type}, so it is not the demo's; choose another --file": "{event_type}(으)로 시작하는 로그이므로 데모의 것이 아닙니다. --file로 다른 파일을 고르세요",
    "its run plays {tape}, and {source} is not that tape or has changed since; give the old one with --tape, or start a new run in another --file": "이 실행은 {tape}을(를) 재생하는데, {source}은(는) 그 테이프가 아니거나 그 뒤에 바뀌었습니다. --tape로 원래 테이프를 주거나, --file로 다른 파일에 새로 시작하세요",
    "there is no row below the header": "헤더 아래에 행이 없습니다",
    "{cell} is earlier than the line before ({at})": "{cell}: 앞 행({at})보다 이릅니다",
    "{cell} is not a number such as 39432.48": "{cell}: 39432.48 같은 수가 아닙니다",
    "{cell} is not above zero": "{cell}: 0보다 커야 합니다",
    "{cell} is below {least}": "{cell}: {least}보다 작습니다",
    "{cell} is not a time such as 2021-01-08T00:00:00.278Z": "{cell}: 2021-01-08T00:00:00.278Z 같은 시각이 아닙니다",
    "the compressed file is damaged ({error})": "압축 파일이 손상되었습니다({error})",
    "this is not UTF-8 text": "UTF-8 텍스트가 아닙니다",
    "this is not CSV ({error})": "CSV가 아닙니다({error})",
    "the column is missing; a tape of {kind} needs {wanted}, and this one has {known}": "열이 없습니다. {kind} 테이프에 필요한 열: {wanted}. 이 파일의 열: {known}",
    "the column appears twice; a tape of {kind} needs {wanted}, and this one has {known}": "열이 두 번 있습니다. {kind} 테이프에 필요한 열: {wanted}. 이 파일의 열: {known}",
    "{count} cells, where the header has {width}": "헤더는 {width}칸인데 {count}칸입니다",
    "again in {delay} ms": "{delay}ms 뒤 다시 시도",
    "parked after {attempts} attempts, payload and tracebacks kept; other events continue": "{attempts}번 시도 뒤 데드 레터로 보관(페이로드와 트레이스백 포함). 나머지는 계속 흐릅니다",
    "tick {number} of {symbol} cannot be true: price {price}, quantity {quantity}": "{symbol}의 {number}번째 틱은 있을 수 없는 값입니다: 가격 {price}, 수량 {quantity}",
    "candle {number} of {symbol} cannot be true: high {high}, low {low}": "{symbol}의 {number}번째 캔들은 있을 수 없는 값입니다: 고가 {high}, 저가 {low}",
}

DEMO_ERRORS: dict[type[PabalError], str] = {
    demo.TapeError: "{where}: {reason}. 테이프에서 아무것도 발행하지 않았습니다",
    demo.RunError: "{path}: {reason}",
    demo.ExchangeUnavailableError: "주문 {order_id}: 거래소를 쓸 수 없습니다",
    demo.OversoldError: "{symbol} {sold}을(를) 파는 체결인데 {held}만 보유하고 있습니다",
}

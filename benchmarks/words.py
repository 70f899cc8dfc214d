"""The texts of the reports in each language; scenarios, cases and rivals are named as in the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GoalWords(NamedTuple):
    """The texts in the table of goals."""

    head: str
    yes: str
    no: str
    unknown: str


class PageWords(NamedTuple):
    """The texts on the benchmarks page around its figures."""

    introduction: str
    machine: str
    goals: str
    synced: str
    """The name of a write and sync in the line about the machine."""
    quick: str
    columns: tuple[str, ...]
    of_goals: GoalWords
    scenarios: Mapping[str, tuple[str, str]]
    """Title and text of each scenario; missing ones use the scenario's own English text."""


ENGLISH_GOALS = GoalWords("| scenario | goal | measured | met? |", "yes", "no", "not measured")
KOREAN_GOALS = GoalWords("| 시나리오 | 목표 | 측정값 | 달성 |", "예", "아니요", "측정하지 않음")

ENGLISH = PageWords(
    introduction="""# Benchmarks

[한국어](benchmarks.ko.md) · [README](../README.md) · [performance](performance.md)

Written by `make bench`; do not edit. In every table the rivals took turns within one run (A B C A B C …),
after one warm-up round. A figure is the median of the rounds; the range beside it runs from the lowest to
the highest. The quotient is computed round by round, so disturbances of a whole round cancel out; the table
gives its median and range. A rival that is not installed, or failed, is shown as such. Durability: `full`
waits for the disk before a publish returns; `normal` survives a crash of the process and may lose the
newest events in a power cut; `memory` writes nothing to disk. Tests never assert timings; `make guard`
compares instruction counts instead.
""",
    machine="Machine",
    goals="Goals",
    synced="write and sync of 4 KiB",
    quick="*Small sizes (`make bench-quick`): a rough indication, not a result.*",
    columns=("case", "rival", "version", "durability", "events"),
    of_goals=ENGLISH_GOALS,
    scenarios={},
)

KOREAN = PageWords(
    introduction="""# 벤치마크

[English](benchmarks.md) · [README](../README.ko.md) · [성능](performance.ko.md)

`make bench`가 만드는 페이지이니 직접 고치지 마세요. 표마다 비교 대상들은 한 실행 안에서 번갈아(A B C A B C …) 돌며, 준비 라운드 한 번은 세지 않습니다. 수치는 라운드들의
중앙값이고, 옆의 범위는 최솟값에서 최댓값까지입니다. 배수는 라운드마다 나누어 구하므로 라운드 전체를 흔든 것은 상쇄되며, 그 중앙값과 범위를 적습니다. 설치되지 않았거나
실패한 비교 대상은 그렇다고 적습니다. 내구성(durability): `full`은 발행이 돌아오기 전에 디스크를 기다리고, `normal`은 프로세스가 죽어도 남지만 정전이 나면 가장 새로운
이벤트를 잃을 수 있으며, `memory`는 디스크에 아무것도 없습니다. 테스트는 시간을 단언하지 않습니다. 그 대신 `make guard`가 명령어 수를 비교합니다. 시나리오, 경우, 비교
대상의 이름은 코드에 있는 그대로입니다.
""",
    machine="측정한 컴퓨터",
    goals="목표",
    synced="4KiB 쓰기와 동기화",
    quick="*작은 규모(`make bench-quick`): 어림값일 뿐 결과가 아닙니다.*",
    columns=("경우", "비교 대상", "버전", "내구성", "이벤트"),
    of_goals=KOREAN_GOALS,
    scenarios={
        "in-memory": (
            "메모리: 처리량",
            "미리 만들어 둔, 필드 여섯 개짜리 이벤트를 하나씩 발행하고, 개수만 세는 비동기 핸들러가 처리합니다. pabal은 기본 옵션 그대로입니다. 애그리거트별 "
            "순서, 재시도, 통계, 워커 4개, 길이 10,000의 큐. 여러 키를 병렬로 처리하면서 키별 순서를 지키고, 재시도하고, 핸들러를 서로 격리하는 것은 pabal뿐입니다. "
            "하한(floor)으로 잰 것들은 이벤트를 넘겨주기만 합니다.",
        ),
        "publish-batch": ("메모리: publish_batch", "같은 이벤트를 하나씩, 그리고 묶어서 발행합니다."),
        "latency": (
            "메모리: 정해진 속도에서의 지연 시간",
            "애그리거트 1,000개의 이벤트가, 받는 쪽이 밀려도 정해진 속도로 나옵니다(개루프, open loop). 지연 시간은 실제로 발행한 때가 아니라 발행했어야 할 때부터 "
            "핸들러가 시작될 때까지입니다. 그래서 한 번 멈추면 그 때문에 늦어진 이벤트 모두에 나타납니다. 발행자와 핸들러는 이벤트 루프 하나를 나눠 쓰며, 발행자는 다음 "
            "이벤트를 발행할 때까지 루프를 양보합니다.",
        ),
        "isolation": (
            "격리: 문제 있는 구독 옆의 정상 구독",
            "발행과 정상 구독의 전달을, 혼자일 때와 다른 구독이 옆에 있을 때로 나누어 잽니다. 옆의 구독은 이벤트마다 1초가 걸리거나, 매번 실패해서 데드 레터로 "
            "보관됩니다. 디스크에서는 모두 커밋되고 정상 구독이 다 처리한 때에 시계를 멈춥니다. 옆의 구독이 쓰는 비용(실패마다 트레이스백과 데드 레터 하나)도 같은 CPU가 "
            "치릅니다.",
        ),
        "durable": (
            "디스크: 처음부터 끝까지",
            "발행자마다 발행을 하나씩 기다립니다. 모든 이벤트가 커밋되고 처리되고 구독의 워터마크까지 저장되면(`bus.drain()`) 시계를 멈추며, 저장되었는지는 나중에 "
            "파일에서 확인합니다. 하한인 raw는 미리 만들어 둔 똑같은 행을 같은 스키마와 프라그마로, 발행자 수만큼씩 묶어, 워터마크와 한 트랜잭션으로, 블로킹 "
            "방식으로 넣습니다. 발행자가 하나일 때는 pabal처럼 이벤트와 완료를 따로 커밋합니다. 큐들과 eventsourcing은 이벤트마다 커밋하고 하나씩 차례로 돕니다. "
            "애그리거트는 1,000개입니다.",
        ),
        "durable-batch": (
            "디스크, 처음부터 끝까지: publish_batch",
            "발행자 넷이 `publish_batch(1000)`으로 발행하고, 비교를 위해 1,000개씩 묶어 직접 삽입하는 것도 잽니다. pabal은 (스트림, 버전) 인덱스를 커밋 뒤에서 "
            "20,000행씩 만듭니다. “until closed”는 그 나머지까지 기다린 값입니다.",
        ),
        "catch-up": (
            "디스크: 따라잡기",
            '`start="beginning"`인 새 구독이 로그를 처음부터 읽습니다. `bus.start()`부터 마지막 이벤트가 처리되고 워터마크가 저장될 때까지 잽니다. 하한은 같은 '
            "파일의 모든 열을 한 번에 읽을 뿐, 누구에게도 넘겨주지 않습니다.",
        ),
        "growth": (
            "디스크: 로그가 커질 때의 비용",
            "발행자 넷이 `publish_batch(1000)`으로, 작은 로그와 이벤트 500만 개가 든 로그에 이벤트를 더 발행합니다(처음부터 끝까지). 대부분이 끝난 상태처럼 일부 "
            "애그리거트의 이벤트만 발행할 때와, 모든 애그리거트의 이벤트를 발행할 때입니다. 운영체제가 파일을 캐시에 들고 있을 수 있습니다.",
        ),
        "recovery": (
            "디스크: 재시작과 복구",
            "이벤트가 많은 로그와 내구성 있는 구독 여러 개를 열어 시작합니다. 깨끗하게 멈춘 뒤와, 아무 구독도 끝내지 못한 이벤트를 남기고 프로세스가 죽은 뒤입니다.",
        ),
        "retention": (
            "디스크: 오래된 이벤트를 지우는 동안의 발행",
            "발행자 하나가 정해진 속도로 이벤트를 건네고(개루프) 동기화될 때까지 기다립니다. 그대로인 로그에서, 그리고 `trim`이 그 이벤트를 지우는 동안 그 "
            "복사본에서입니다. 이벤트가 나왔어야 할 때부터 `publish`가 돌아올 때까지의 밀리초입니다.",
        ),
        "processes": (
            "한 프로세스에서 다른 프로세스로",
            "한 프로세스가 1초에 이벤트 50개를 하나씩 동기화하며 파일에 쓰고, 다른 프로세스의 버스가 처리합니다. 쓰기를 부른 때부터 핸들러가 시작될 때까지입니다. "
            "“pabal, polling only”는 경로가 너무 길어 소켓을 둘 수 없는 폴더라서, 커밋을 알리지 못하고 파일을 살펴서만 알아챕니다.",
        ),
        "event-sourcing": (
            "이벤트 소싱",
            "저장: 메모리에 있는 애그리거트 100개 가운데 하나에 새 이벤트 하나를 저장합니다. 비교 대상의 호출은 블로킹이고 SQLite에는 쓰는 쪽이 하나뿐이라 커맨드를 하나씩 "
            "차례로 실행합니다. 불러오기: 이벤트 1,000개짜리 애그리거트를 캐시도 스냅샷도 없이 로그에서 불러옵니다. 다시 만들기: 로그의 모든 이벤트로 계정마다 한 행인 "
            "테이블을 만들어, 쓰던 테이블과 바꿀 때까지입니다.",
        ),
        "redis": (
            "Redis 서버 위에서",
            "측정할 때마다 `appendonly yes`, `appendfsync everysec`인 서버를 따로 띄우며, 발행자와 소비자는 저마다 프로세스입니다. redis-py 루프는 `XADD` "
            "100개를 파이프라인 하나에 담고, `XREADGROUP`으로 100개를 읽어 `XACK` 하나로 확인하며, 디코딩은 하지 않습니다. FastStream은 100개씩 발행하고 "
            "100개까지 읽습니다. 둘은 마지막 확인에서, pabal은 마지막 핸들러에서 끝납니다. 초당 2,000개에서는 앞의 이벤트가 저장되기를 기다리지 않고 하나씩 "
            "발행하며, 루프는 하나마다 `XADD`를 보냅니다. 프로세스 하나와 둘의 비교에서 핸들러는 1ms를 기다리고 워커는 프로세스마다 넷입니다. 한 프로세스를 죽인 경우에는, "
            "그 순간에 발행한 이벤트 1,000개를 남은 프로세스가 다 처리할 때까지 잽니다.",
        ),
        "memory": (
            "메모리 사용량",
            "이미 만들어진 이벤트가 핸들러를 기다립니다. 실행마다 새 프로세스에서, 상주 메모리가 이벤트 하나에 얼마나 느는지 잽니다. pabal은 기다리는 것이 있는 키마다 "
            "레인을 둡니다. 그다음에는 발행하면서 만든 이벤트가, 거의 내내 가득 차 있는 길이 10,000의 큐를 지나갑니다. 줄 선 이벤트까지 포함한 최대 증가분입니다.",
        ),
        "commands": (
            "커맨드",
            "두 수를 더하는 핸들러에 커맨드를 차례로 보냅니다. 첫 줄을 넘는 만큼이 버스의 비용입니다.",
        ),
        "import": (
            "임포트",
            "컴파일된 파일이 있는 상태에서, 매번 새 인터프리터로 임포트합니다. 둘째 열은 임포트가 끌어들이는 이벤트 루프와 데이터베이스 모듈의 수입니다. "
            "`import pabal`은 이름을 처음 쓸 때 불러오며, 셋째 줄은 내구성 있는 버스를 쓰는 프로그램이 치르는 값입니다.",
        ),
        "specification": (
            "명세의 수치",
            "한 번만 불러오는 것들을 이벤트 하나로 먼저 불러온 뒤, 새 프로세스에서 이벤트 1,000개를 만들고 발행하고 처리합니다. pabal의 바탕이 된 명세는 자기 컴퓨터에서 "
            "이벤트 1,000개에 2.04초, 메모리 1.12MB 증가를 보고합니다. 증가분은 상주 메모리의 최댓값입니다.",
        ),
    },
)

"""The Korean message of every error class, with the fields of the English template."""

from __future__ import annotations

from pabal import errors

_STORAGE: dict[type[errors.PabalError], str] = {
    errors.StorageError: "{path}: {reason}",
    errors.StorageClosedError: "{path}: 닫힌 로그입니다. 다시 열거나, 이 로그를 쓰는 버스를 시작하세요",
    errors.StorageUnavailableError: "{path}: {reason}. 아무것도 쓰지 않았습니다. 경로나 디스크, 권한을 고친 뒤 다시 시도하세요",
    errors.NotAPabalDatabaseError: "{path}: pabal 데이터베이스가 아닙니다({reason}). 파일은 건드리지 않았습니다. 다른 경로를 쓰세요",
    errors.NewerSchemaError: "{path}: 스키마 버전이 {found}인데 {supported}까지만 지원합니다. 파일은 건드리지 않았습니다. pabal을 업그레이드하세요",
    errors.CorruptDeadLetterError: "{path}: 위치 {position}의 이벤트에서 온 데드 레터 {dead_letter_id}이(가) 손상되어({reason}) 내보내지 않습니다. 버리세요(discard). 이벤트 자체는 온전할 수 있습니다",
    errors.CorruptLogError: "{path}: 로그의 위치 {position}이(가) 손상되었습니다({reason}). 이 이벤트는 내보내지 않습니다. 백업을 복원하거나, backup()과 check()로 온전한 부분을 복사하세요",
    errors.BrokerError: "{path}: {reason}",
    errors.BrokerUnavailableError: "{path}: {reason}. 마지막 호출이 실행되었는지는 알 수 없습니다. 서버가 응답하면 다시 호출하세요. 같은 이벤트는 한 번만 저장됩니다",
    errors.PartitionCountError: "{path}: 로그의 파티션은 {wanted}개가 아니라 {found}개입니다. 키의 위치를 정하는 수이므로 로그를 만들 때 고정됩니다. partitions를 빼거나 다른 namespace를 쓰세요",
}

_CONFLICTS: dict[type[errors.PabalError], str] = {
    errors.ConcurrencyError: "스트림 {aggregate_type}/{aggregate_id}의 버전이 {expected_version}이어야 하는데 {actual_version}입니다. 다시 읽고 다시 결정하세요",
    errors.DuplicateEventError: "이벤트 ID {event_id}은(는) 위치 {position}에 다른 내용으로 저장되어 있습니다. ID 하나는 이벤트 하나를 가리킵니다. 옛 이벤트를 바꾸지 말고 새 이벤트를 만드세요",
    errors.LeaseLostError: "구독 {name!r}: 다른 프로세스가 넘겨받았습니다(우리의 에포크 {epoch} 종료). 진행 상황은 기록하지 않았고, 다른 프로세스가 이어 갑니다",
    errors.SubscriptionInUseError: "구독 {name!r}: 지금 처리되고 있습니다. 구독을 해제하거나 버스를 멈춘 뒤 지우세요",
}

_USAGE: dict[type[errors.PabalError], str] = {
    errors.DuplicateEventTypeError: "이벤트 타입 {event_type!r}은(는) {first}이(가) 이미 쓰고 있습니다. {second}에 다른 event_type을 지정하세요",
    errors.UnsupportedFieldError: "{event_class}.{field}: 저장할 수 없습니다({reason}). JSON으로 옮겼다가 되돌릴 수 있는 타입을 쓰세요(str, int, float, bool, Decimal, datetime, UUID, Enum, tuple, frozen struct나 dataclass 등)",
    errors.UpcasterError: "{event_type!r}의 버전 {from_version} 업캐스터: {detail}",
    errors.InvalidHandlerError: "{handler}: 이벤트를 처리할 수 없습니다({reason}). 매개변수가 하나(이벤트)나 둘(이벤트와 DeliveryContext)인 함수, 또는 handle(event)가 있는 객체를 넘기세요",
    errors.DuplicateSubscriptionError: "이 버스에 같은 이름의 구독이 이미 있습니다: {name!r}. name=…으로 다른 이름을 주거나, 이벤트 클래스의 튜플로 한 번만 구독하세요",
    errors.BusNotRunningError: "{action}: 할 수 없습니다. 버스의 상태가 {state}입니다. 먼저 'async with bus:'나 await bus.start()를 쓰세요",
    errors.WrongLoopError: "{action}: 여기서는 할 수 없습니다. 버스는 자신을 시작한 이벤트 루프의 것입니다. 다른 스레드나 루프에서는 bus.publish_threadsafe(event)를, 그 밖에 기다릴 수 있는 호출에는 asyncio.run_coroutine_threadsafe(..., loop)를 쓰세요",
    errors.InsideHandlerError: "{action}: 핸들러 안에서는 할 수 없습니다. 처리 중인 바로 그 이벤트를 기다리게 됩니다. 먼저 반환하세요. 핸들러가 시작한 태스크는 핸들러가 반환한 뒤에 할 수 있습니다",
    errors.MissingExtraError: '{feature}에는 선택 설치 항목이 필요합니다: pip install "pabal[{extra}]"',
    errors.InvalidFilterError: "{field}={value!r}: 필터가 아닙니다. {reason}",
    errors.HandlerNotFoundError: "이 {bus}에는 {message_type}의 핸들러가 없습니다. @handles({message_type})를 붙인 핸들러를 만들고, 그 모듈을 임포트하세요",
    errors.DuplicateHandlerError: "{message_type}은(는) {first}이(가) 이미 처리하므로 {second}은(는) 처리할 수 없습니다. 하나만 남기세요. 여럿이 알아야 하는 것은 이벤트이므로 이벤트 버스에 발행하세요",
    errors.InvalidMessageHandlerError: "{handler}: 커맨드나 쿼리를 처리할 수 없습니다({reason}). 첫 매개변수는 메시지이고, 나머지에는 필요한 것의 타입을 주석으로 답니다",
    errors.DependencyError: "{handler}이(가) 요구하는 {parameter}: {wanted}을(를) 줄 수 없습니다: {reason}",
    errors.ProcessDefinitionError: "프로세스 매니저 {process}: {detail}",
    errors.AggregateDefinitionError: "애그리거트 {aggregate}: {detail}",
    errors.EventNotAppliedError: "{aggregate}에 @applies({event_type}) 메서드가 없습니다. 추가하세요(이벤트가 아무것도 바꾸지 않으면 빈 메서드로)",
    errors.SpoiledAggregateError: "{aggregate} {aggregate_id!r}: 이벤트를 기록한 뒤 예외를 일으켰습니다. 이벤트는 되돌렸지만 상태에는 이미 반영되었으니 다시 읽으세요",
    errors.ProjectionDefinitionError: "프로젝션 {projection}: {detail}",
}

_EVENTS: dict[type[errors.PabalError], str] = {
    errors.UnregisteredEventError: "{event_class}: 등록된 이벤트가 아닙니다. DomainEvent에서 파생하거나, register_event({event_class}, event_type=…)를 한 번 호출하세요",
    errors.UnserializableEventError: "이벤트 {event_type!r}({event_id}): 선언한 대로 저장할 수 없습니다: {reason}. 아무것도 저장하지 않았습니다",
    errors.NonFiniteNumberError: "이벤트 {event_type!r}({event_id}): {field} = {value}. 이벤트의 수는 유한해야 합니다. 계산을 확인하거나, 필드를 선택 사항으로 선언하고 None을 넘기세요",
    errors.NaiveDatetimeError: "이벤트 {event_type!r}: {field}에 시간대가 없는 datetime이 있어 시점을 알 수 없습니다. datetime.now(timezone.utc)처럼 시간대가 있는 것을 넘기세요",
    errors.PayloadTooLargeError: "이벤트 {event_type!r}({event_id}): 페이로드가 {size}바이트로 한도 {limit}바이트를 넘습니다. 큰 부분은 다른 곳에 저장하고 참조를 발행하거나, max_payload_bytes를 늘리세요",
    errors.DecodeError: "위치 {position}의 이벤트 {event_type!r}: 디코딩할 수 없습니다: {reason}. 바이트는 보존됩니다. 클래스가 바뀌었다면 새 필드에 기본값을 주거나 schema_version을 올리고 업캐스터를 쓴 뒤 데드 레터를 재시도하세요. 페이로드를 고쳐도 됩니다",
    errors.UnknownEventTypeError: "이벤트 타입 {event_type!r}(위치 {position}): 등록되어 있지 않습니다. 타입을 정의한 모듈을 임포트하거나, 이름을 바꾼 클래스라면 event_type = {event_type!r}을(를) 주세요",
    errors.EventWithoutAggregateError: "{aggregate}이(가) aggregate_id 없는 이벤트 {event_type!r}을(를) 기록했습니다. 이벤트 클래스에 애그리거트의 ID를 반환하는 aggregate_id 프로퍼티를 만드세요",
    errors.EventOfOtherAggregateError: "이벤트 {event_type!r}은(는) {found}의 것인데 {wanted}이(가) 기록했습니다",
    errors.EventNotFoundError: "이벤트가 없습니다: {event_id}. 여기에 발행된 적이 없거나, 보존 정책에 따라 지워졌습니다",
}

_DELIVERY: dict[type[errors.PabalError], str] = {
    errors.QueueFullError: "버스가 가득 찼습니다(기다리는 것 {queue_size}개, 한도 {max_queue_size}개). 더 천천히 발행하거나, max_queue_size를 늘리거나, backpressure='wait'를 쓰세요",
    errors.DrainTimeoutError: "{timeout}초가 지났지만 전달 {pending}개가 끝나지 않았습니다. 그 가운데 {retrying}개는 재시도를 기다립니다(drain(retries=False)는 이들을 빼고 기다립니다). 어디인지는 bus.get_statistics()에서 보세요",
    errors.DeadLetterNotFoundError: "데드 레터 {dead_letter_id}번이 없습니다. 그 사이에 재시도되었거나 폐기되었습니다. 목록을 다시 보세요",
    errors.SubscriptionNotFoundError: "구독이 없습니다: {name!r}. 있는 구독: {known}",
    errors.ProjectionNotFoundError: "프로젝션이 없습니다: {name!r}. 있는 프로젝션: {known}",
    errors.ActionNotPossibleError: "{subject}: {action}을(를) 할 수 없습니다. {reason}",
}

_OTHERS: dict[type[errors.PabalError], str] = {
    errors.InvalidMessageError: "{message_type}: 거절되었습니다: {reason}. 고쳐서 다시 보내세요",
    errors.NotAuthorisedError: "{message_type}: 여기서는 허용되지 않습니다. 권한을 요청하거나 다른 사람이 보내게 하세요",
    errors.CommandIdReusedError: "커맨드 ID {command_id}은(는) 다른 내용으로 이미 처리된 {first}의 것이므로 {command_type}은(는) 처리하지 않았습니다. ID 하나는 커맨드 하나를 가리킵니다. 새 커맨드를 만드세요",
    errors.AggregateNotFoundError: "{aggregate_type} {aggregate_id!r}이(가) 없습니다. 로그에 그 이벤트가 없습니다",
    errors.SnapshotError: "스냅샷을 쓸 수 없습니다: {reason}",
    errors.SnapshotOfOtherClassError: "스냅샷이 {wanted}이(가) 아니라 {found}의 것입니다. 지우거나 원래 클래스로 읽으세요",
    errors.ProjectionError: "프로젝션 {projection!r}: 계속할 수 없습니다: {reason}",
    errors.ProjectionHandlerError: "프로젝션 {projection!r}: 위치 {position} 앞에 멈춰 있습니다. {event_type!r}의 핸들러가 {reason}을(를) 일으켰습니다. 배치에서 아무것도 쓰지 않았습니다. 핸들러를 고치고, 테이블이 바뀌었다면 프로젝션의 버전을 올린 다음 다시 시작하세요",
    errors.EventNotProjectedError: "프로젝션 {projection!r}: 다시 만들 수 없습니다: 위치 {position}의 {event_type!r}, {reason}. 클래스를 임포트하거나, @projects 메서드를 추가하거나, ignores에 넣으세요",
}

ERRORS = {**_STORAGE, **_CONFLICTS, **_USAGE, **_EVENTS, **_DELIVERY, **_OTHERS}

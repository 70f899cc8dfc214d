"""Korean translations of Click's help pages and usage errors, including those of older releases."""

from __future__ import annotations

HELP_PAGE = {
    "Options": "옵션",
    "Commands": "명령",
    "[OPTIONS]": "[옵션]",
    "COMMAND [ARGS]...": "명령 [인자]...",
}

EXTRAS = {"default: ": "기본값: ", "env var: ": "환경 변수: ", "required": "필수"}
"""The texts in brackets after an option's help."""

METAVARS = {
    "INTEGER RANGE": "정수",
    "INTEGER": "정수",
    "FLOAT RANGE": "실수",
    "TEXT": "문자열",
    "FILENAME": "파일",
    "DIRECTORY": "디렉터리",
    "PATH": "경로",
}

MISTAKES = {
    "No such option {name}.": "그런 옵션이 없습니다: {name}",
    "No such option: {name}": "그런 옵션이 없습니다: '{name}'",
    "No such option: {name} Did you mean {possibility}?": "그런 옵션이 없습니다: '{name}' ({possibility}을(를) 쓰려고 하셨나요?)",
    "No such option: {name} (Possible options: {possibilities})": "그런 옵션이 없습니다: '{name}' (이 가운데 하나인가요? {possibilities})",
    "No such command {name}.": "그런 명령이 없습니다: {name}",
    "{message} Did you mean {possibility}?": "{message} ({possibility}을(를) 쓰려고 하셨나요?)",
    "{message} (Did you mean one of: {possibilities}?)": "{message} (이 가운데 하나인가요? {possibilities})",
    "Missing command.": "명령을 쓰세요.",
    "Missing argument {name}.": "인자가 없습니다: {name}",
    "Missing argument {name}. {message}": "인자가 없습니다: {name}. {message}",
    "Missing option {name}.": "옵션이 없습니다: {name}",
    "Missing option {name}. {message}": "옵션이 없습니다: {name}. {message}",
    "Missing parameter: {name}": "매개변수가 없습니다: {name}",
    "Choose from:\n\t{choices}": "다음 중에서 고르세요:\n\t{choices}",
    "Invalid value: {message}": "값이 잘못되었습니다: {message}",
    "Invalid value for {name}: {message}": "{name}의 값이 잘못되었습니다: {message}",
    "{value} is not one of {choices}.": "{value}: {choices} 중 하나를 쓰세요.",
    "{value} is not {choice}.": "{value}: {choice}을(를) 쓰세요.",
    "{value} is not a valid {number_type}.": "{value}: {number_type}을(를) 쓰세요.",
    "{value} is not a valid {number_type}": "{value}: {number_type}을(를) 쓰세요.",
    "integer": "정수",
    "integer range": "정수",
    "float": "실수",
    "float range": "실수",
    "{value} is not in the range {range}.": "{value}: 범위({range})를 벗어났습니다.",
    "Option {name} requires an argument.": "옵션 {name}에는 값이 필요합니다.",
    "Option {name} requires {number} arguments.": "옵션 {name}에는 값이 {number}개 필요합니다.",
    "Option {name} does not take a value.": "옵션 {name}은(는) 값을 받지 않습니다.",
    "Got unexpected extra argument ({args})": "필요 없는 인자가 있습니다: {args}",
    "Got unexpected extra arguments ({args})": "필요 없는 인자가 있습니다: {args}",
    "Argument {name} takes {number} values.": "인자 {name}에는 값이 {number}개 필요합니다.",
    "File {path} does not exist.": "파일이 없습니다: {path}",
    "Directory {path} does not exist.": "디렉터리가 없습니다: {path}",
    "Path {path} does not exist.": "경로가 없습니다: {path}",
    "Directory {path} is a file.": "디렉터리가 아니라 파일입니다: {path}",
    "File {path} is a directory.": "파일이 아니라 디렉터리입니다: {path}",
    "{kind} {path} is not readable.": "읽을 수 없습니다: {path}",
    "{kind} {path} is not writable.": "쓸 수 없습니다: {path}",
    "Could not open file {path}: {message}": "파일 {path}을(를) 열 수 없습니다: {message}",
    "{editor}: Editing failed": "{editor}: 편집에 실패했습니다",
    "{editor}: Editing failed: {message}": "{editor}: 편집에 실패했습니다: {message}",
}

"""Settings: what differs between installations, read from the environment `ORDERSTREAM_*` and from nowhere else.

Law: settings are read once, at an edge, and handed on as a value; the kernel never sees them. A secret is a SecretStr or
bytes from `shop_secrets`/`hash_key`, so that no repr, log line or error shows it. Reason: a value that is read where it
is used cannot be replayed, and a secret that can be printed will be.
"""

from __future__ import annotations

import json
import os
import secrets as random
import sys
import sysconfig
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from orderstream.errors import BadFile, BadSettings, NotInstalled
from orderstream.money import EXPONENT

PREFIX = "ORDERSTREAM_"


def _meaning(zh: str, en: str) -> str:
    return f"{zh} · {en}"


class Settings(BaseSettings):
    """One installation's settings. Field `name` is `ORDERSTREAM_NAME` in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)

    brokers: str | None = Field(
        None, description=_meaning("Kafka 地址 host:port；不设则自行寻找或启动", "Kafka's host:port; unset: found or started")
    )
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description=_meaning(
            "连接方式：明文、TLS、TLS 加用户密码", "how to connect: in the clear, TLS, TLS with user and password"
        ),
    )
    kafka_ca: Path | None = Field(
        None,
        description=_meaning("签发 Kafka 证书的 CA（PEM）；不设用系统的", "CA of Kafka's certificate, PEM; unset: the system's"),
    )
    kafka_cert: Path | None = Field(
        None, description=_meaning("客户端证书（PEM），管理员用", "our own certificate, PEM: for the administrator")
    )
    kafka_cert_key: Path | None = Field(
        None, description=_meaning("其私钥；不设则在同一文件", "its key; unset: in the same file")
    )
    kafka_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256"] = Field(
        "SCRAM-SHA-512", description=_meaning("密码的校验方式", "how the password is proved")
    )
    kafka_user: str | None = Field(None, description=_meaning("Kafka 用户", "Kafka's user"))
    kafka_password: SecretStr | None = Field(None, description=_meaning("Kafka 密码", "its password"))
    kafka_password_file: Path | None = Field(
        None, description=_meaning("密码文件，每次建立连接时重读", "file of the password, read again at each connection")
    )
    broker_with: Literal["auto", "docker", "java"] = Field(
        "auto", description=_meaning("用什么启动 Kafka", "what to start a Kafka with, where none is given")
    )
    broker_port: int = Field(
        0, ge=0, le=65535, description=_meaning("自启 Kafka 的端口，0 为任选空闲端口", "port of a Kafka of ours; 0: a free one")
    )
    broker_heap_mb: int = Field(512, ge=128, description=_meaning("自启 Kafka 的堆内存 MB", "heap of a Kafka of ours, MB"))
    topic_prefix: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,60}$", description=_meaning("所有主题名的前缀", "put before every topic's name")
    )
    app_id: str = Field(
        "orderstream",
        pattern=r"^[A-Za-z0-9._-]{1,60}$",
        description=_meaning("消费组与变更日志的名字", "names group and changelogs"),
    )
    partitions: int = Field(8, ge=1, le=512, description=_meaning("主题的分区数", "partitions of a topic"))
    replication: int = Field(1, ge=1, le=7, description=_meaning("主题的副本数", "replicas of a topic"))
    intake_host: str = Field("127.0.0.1", description=_meaning("接收服务的监听地址", "address that intake listens on"))
    intake_port: int = Field(8080, ge=0, le=65535, description=_meaning("接收服务的端口", "port that intake listens on"))
    intake_in_flight: int = Field(
        1000,
        ge=1,
        description=_meaning(
            "同时处理的推送上限（慢时自动更低），超出答 503", "deliveries at once, fewer where it is slow; past it 503"
        ),
    )
    intake_ack_seconds: float = Field(
        3.5, gt=0, le=60, description=_meaning("等待 Kafka 确认的秒数，超出答 503", "seconds to wait for Kafka; past it 503")
    )
    intake_read_seconds: float = Field(
        5.0, gt=0, le=60, description=_meaning("读取请求体的秒数，超出答 408", "seconds to read a body; past it 408")
    )
    metrics_host: str = Field("127.0.0.1", description=_meaning("工作进程指标的监听地址", "address of workers' metrics"))
    metrics_port: int = Field(
        9464, ge=0, le=65535, description=_meaning("工作进程指标的端口，0 为任选", "port of a worker's metrics; 0: a free one")
    )
    timezone: str = Field("Asia/Shanghai", description=_meaning("店铺的时区，决定日界", "the shop's time zone: where a day ends"))
    currency: str = Field("CNY", description=_meaning("店铺的记账货币", "the shop's own currency"))
    state_dir: Path = Field(
        Path(".orderstream"), description=_meaning("状态目录（本机 Kafka 的数据、密钥）", "state: own Kafka's data, the key")
    )
    cache_dir: Path | None = Field(
        None, description=_meaning("下载缓存目录，默认遵循 XDG", "cache for downloads; unset: as XDG says")
    )
    key: SecretStr | None = Field(
        None,
        description=_meaning(
            "哈希密钥；不设则生成一次存于状态目录", "keys the hashes of entities; unset: made once in state_dir"
        ),
    )
    key_file: Path | None = Field(
        None, description=_meaning("装哈希密钥的文件，代替 ORDERSTREAM_KEY", "a file with that key, instead of ORDERSTREAM_KEY")
    )
    secrets: Annotated[dict[str, tuple[SecretStr, ...]], NoDecode] = Field(
        {}, description=_meaning('店铺密钥 JSON：{"api:main": ["新","旧"]}', 'shop secrets: {"api:main": ["new", "old"]}')
    )
    secrets_file: Path | None = Field(
        None, description=_meaning("同格式的密钥文件，改动即生效", "a file of the same format; a change takes effect at once")
    )
    platforms: SecretStr | None = Field(
        None,
        description=_meaning(
            '平台账户 JSON：{"douyin:main": {"app_key": …}}', 'platforms\' accounts: {"douyin:main": {"app_key": …}}'
        ),
    )
    platforms_file: Path | None = Field(
        None, description=_meaning("同格式的平台账户文件，改动即生效", "a file of the same format; a change takes effect at once")
    )
    database: SecretStr | None = Field(
        None,
        description=_meaning("PostgreSQL 地址：看板、下游、示例 ERP", "PostgreSQL's URL: board, downstream, the example ERP"),
    )
    board_host: str = Field("127.0.0.1", description=_meaning("看板的监听地址", "address that the board listens on"))
    board_port: int = Field(8088, ge=0, le=65535, description=_meaning("看板的端口，0 为任选", "the board's port; 0: a free one"))
    board_decide_within: str = Field(
        "24h",
        pattern=r"^\d+(s|m|h|d)$",
        description=_meaning("规则包没说时，人工须在多久内决定，0s 不限", "time to decide where the pack has none; 0s: no limit"),
    )
    board_keep_days: int = Field(
        90, ge=1, description=_meaning("了结的订单，其内容保留多少天", "days that the contents of an order that is over are kept")
    )
    board_at_deadline: Literal["stay", "release", "cancel"] = Field(
        "stay",
        description=_meaning("逾期无人决定：留着、放行、取消", "what is done where nobody decided in time"),
    )
    board_approval_from: int = Field(
        0, ge=0, description=_meaning("放行金额（分）达到即须审批，0 不设", "releases of so many fen need an approver; 0: none")
    )
    board_two_approvers_from: int = Field(
        0, ge=0, description=_meaning("须审批的订单金额（分）达到即须两人，0 不设", "approvals of so many fen need two; 0: none")
    )
    board_verify: bool = Field(
        False, description=_meaning("放行冻结订单前须二次核实身份", "frozen orders need a second identity check before release")
    )
    actions_file: Path | None = Field(
        None,
        description=_meaning(
            "通知谁、怎么通知（YAML），改动即生效", "who is told, and how (YAML); a change takes effect at once"
        ),
    )
    links_url: str = Field(
        "http://127.0.0.1:8090",
        description=_meaning(
            "消息里链接的地址，浏览器经它找到确认页面", "address of links in messages, where browsers find our pages"
        ),
    )
    links_host: str = Field("127.0.0.1", description=_meaning("确认页面的监听地址", "address that the pages listen on"))
    links_port: int = Field(
        8090, ge=0, le=65535, description=_meaning("确认页面的端口，0 为任选", "port of the pages; 0: a free one")
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#]+/?$",
        description=_meaning("浏览器访问看板的地址，反向代理之后必设", "where browsers find the board; needed behind a proxy"),
    )
    oidc_issuer: str | None = Field(
        None,
        pattern=r"^https?://",
        description=_meaning("公司统一登录（OIDC）的 issuer", "issuer of the company's sign-in (OIDC)"),
    )
    oidc_client_id: str | None = Field(None, description=_meaning("在其处登记的客户端", "our client id there"))
    oidc_client_secret: SecretStr | None = Field(None, description=_meaning("其密钥", "its secret"))
    oidc_trust_username: bool = Field(
        False,
        description=_meaning(
            "没有已验证邮箱时，以 preferred_username 认人", "know people by preferred_username where no e-mail is verified"
        ),
    )
    downstream_host: str = Field("127.0.0.1", description=_meaning("仓库核对包裹的监听地址", "address that answers /check"))
    downstream_port: int = Field(
        8082, ge=0, le=65535, description=_meaning("其端口，0 为任选", "port that answers /check; 0: a free one")
    )
    delivery_url: str | None = Field(
        None,
        description=_meaning("没有 Kafka 的 ERP 接收放行与召回的地址", "where an ERP without Kafka takes releases and recalls"),
    )
    delivery_seconds: float = Field(
        10.0, gt=0, le=120, description=_meaning("等待其应答的秒数", "seconds to wait for its answer")
    )
    delivery_at_once: int = Field(8, ge=1, le=200, description=_meaning("同时投递几单", "how many orders at once"))
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description=_meaning("日志级别", "least level that is logged")
    )

    @field_validator(
        "brokers", "kafka_ca", "kafka_cert", "kafka_cert_key", "kafka_user", "kafka_password", "kafka_password_file",
        "key", "key_file", "secrets_file", "platforms", "platforms_file", "cache_dir", "database", "delivery_url",
        "public_url", "oidc_issuer", "oidc_client_id", "oidc_client_secret", "actions_file",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _empty_is_absent(cls, value: object) -> object:
        # `ORDERSTREAM_BROKERS= command` is how a shell user unsets a variable for one command
        return None if value == "" else value

    @field_validator("brokers")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        for one in (value or "").split(",") if value else ():
            host, _, port = one.strip().rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("is not host:port")
        return value

    @field_validator("delivery_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("is no http:// or https:// address")
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("is no IANA time zone") from error
        return value

    @field_validator("currency")
    @classmethod
    def _currency(cls, value: str) -> str:
        if value not in EXPONENT:
            raise ValueError("is no ISO 4217 currency")
        return value

    @field_validator("secrets", mode="before")
    @classmethod
    def _decode_secrets(cls, value: object, info: ValidationInfo) -> object:
        del info
        return _secrets(value) if isinstance(value, str) else value

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """The environment's settings, with overrides on top. Raises BadSettings, naming the variable and no value."""
        try:
            settings = cls(**overrides)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else PREFIX
            raise BadSettings(f"设置 {name} 不可用 · setting {name}: {first['msg']}") from None
        except SettingsError as error:
            raise BadSettings(f"设置不可读 · settings: {error}") from None
        settings._agree()
        return settings

    def _agree(self) -> None:
        """Raises BadSettings where one setting needs another: found here, it is a sentence and not a failed connection."""
        sasl = self.kafka_security == "SASL_SSL"
        passwords = (self.kafka_password is not None) + (self.kafka_password_file is not None)
        named = self.kafka_user is not None
        for wrong, name, sentence in (
            (self.kafka_security != "PLAINTEXT" and self.brokers is None, "BROKERS", "加密的 Kafka 须给出地址 · is unset"),
            (not sasl and (named or passwords), "KAFKA_SECURITY", "有用户或密码则须为 SASL_SSL · a user needs SASL_SSL"),
            (sasl and not named, "KAFKA_USER", "SASL_SSL 需要用户 · SASL_SSL needs a user"),
            (sasl and not passwords, "KAFKA_PASSWORD_FILE", "SASL_SSL 需要密码 · SASL_SSL needs a password"),
            (passwords > 1, "KAFKA_PASSWORD", "密码与密码文件只设其一 · set the password or its file, not both"),
            (self.key is not None and self.key_file is not None, "KEY", "与 KEY_FILE 只设其一 · set it or KEY_FILE, not both"),
        ):
            if wrong:
                raise BadSettings(f"设置 {PREFIX}{name} 不可用：{sentence} (setting {PREFIX}{name})")

    @property
    def group(self) -> str:
        """The workers' application id: consumer group and the changelogs' first part. The prefix keeps installations apart."""
        return self.topic_prefix + self.app_id

    @property
    def cache(self) -> Path:
        """Where downloads are kept between runs."""
        if self.cache_dir is not None:
            return self.cache_dir
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(base) / "orderstream"

    def hash_key(self) -> bytes:
        """The key of entity hashes: the setting, else its file, else a random one made once in state_dir (mode 0600)."""
        if self.key is not None:
            return self.key.get_secret_value().encode()
        if self.key_file is not None:
            return read_secret(self.key_file)
        path = self.state_dir / "key"
        try:
            return (path.read_bytes().strip() if path.exists() else b"") or _make_key(path)
        except OSError as error:
            raise BadSettings(
                f"密钥文件 {path} 不可用（{error.strerror}），请设置 {PREFIX}KEY_FILE 或腾出磁盘"
                f" · key file {path}: {error.strerror}; set {PREFIX}KEY_FILE, or make room"
            ) from None

    def shop_secrets(self, channel: str, shop: str) -> tuple[bytes, ...]:
        """The secrets a shop may sign with, newest first; () for a shop that is not configured. Reads secrets_file anew."""
        name = f"{channel}:{shop}"
        found = list(self.secrets.get(name, ()))
        if self.secrets_file is not None:
            found += read_secrets(self.secrets_file).get(name, ())
        return tuple(secret.get_secret_value().encode() for secret in found)


def _make_key(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    key = random.token_hex(32).encode()
    mine = path.with_name(f"{path.name}.{os.getpid()}.{random.token_hex(4)}")
    handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    # link() is the one step that fails if another process was first: all processes end with the same key
    try:
        os.link(mine, path)
    except FileExistsError:
        key = path.read_bytes().strip()
    finally:
        mine.unlink()
    return key


def _secrets(text: str) -> dict[str, tuple[SecretStr, ...]]:
    try:
        table = json.loads(text or "{}")
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(table, dict):
        raise ValueError('is not {"channel:shop": ["secret", …]}')  # noqa: TRY004  pydantic reports ValueErrors
    out: dict[str, tuple[SecretStr, ...]] = {}
    for name, values in table.items():
        if name.count(":") != 1 or not isinstance(values, list) or not values:
            raise ValueError('is not {"channel:shop": ["secret", …]}')
        if not all(isinstance(value, str) and value for value in values):
            raise ValueError(f"{name}: a secret is empty or no text")
        out[name] = tuple(SecretStr(value) for value in values)
    return out


def read_secrets(path: Path) -> dict[str, tuple[SecretStr, ...]]:
    """The shop secrets in a file. Raises BadFile."""
    try:
        return _secrets(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        raise BadFile(f"密钥文件不可读 · cannot read the secrets file {path}") from None
    except ValueError as error:
        raise BadFile(f"密钥文件格式不对 · secrets file {path} {error}") from None


def read_secret(path: Path) -> bytes:
    """The one secret that a file holds, without the line's end. Raises BadFile."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadFile(f"密钥文件不可读 · cannot read the secret in {path}: {error.strerror}") from None
    if not secret:
        raise BadFile(f"密钥文件是空的 · the secret's file {path} is empty")
    return secret


def data_file(relative: str) -> Path:
    """A file or folder that ships beside the code (`schemas/topics`, `rules/standard`, `deploy/kafka/pom.xml`).

    From a checkout it is the repository's own; from an installed package the one under `share/orderstream`.
    """
    places = (
        Path(__file__).resolve().parent.parent,
        Path(sysconfig.get_path("data")) / "share" / "orderstream",
        Path(sys.prefix) / "share" / "orderstream",
    )
    for place in places:
        if (place / relative).exists():
            return place / relative
    raise NotInstalled(f"安装不完整，缺少 {relative} · the installation lacks {relative}")


def rows(settings: Settings) -> list[tuple[str, str, str]]:
    """(variable, value, meaning) of every setting, secrets masked: what `orderstream settings` shows."""
    out = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if name == "secrets":
            shown = ", ".join(f"{shop} ({len(values)})" for shop, values in value.items()) or "—"
        elif isinstance(value, SecretStr):
            shown = "••••••"
        else:
            shown = "—" if value in (None, "") else str(value)
        out.append((PREFIX + name.upper(), shown, field.description or ""))
    return out

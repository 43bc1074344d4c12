-- Who works with the board, and how they come in. Times are ms UTC. Secrets (passwords, links, sessions, tokens) stand here only
-- as hashes. A person is named by their login everywhere else (decisions.by, audit.by, deputies).
CREATE TABLE board.people (
    id bigserial PRIMARY KEY,
    login text NOT NULL UNIQUE CHECK (login = lower(login) AND login <> ''),
    name text NOT NULL,
    hash text,                                -- argon2id; null: has not chosen a password, or comes by OIDC only
    roles text[] NOT NULL DEFAULT '{}',
    shops text[] NOT NULL DEFAULT '{}',       -- channel:shop; empty: all of them
    language text NOT NULL DEFAULT 'zh' CHECK (language IN ('zh', 'en')),
    subject text UNIQUE,                      -- issuer and subject of the OIDC account that is theirs
    made_at bigint NOT NULL,
    made_by text NOT NULL,
    seen_at bigint,
    disabled_at bigint
);

CREATE TABLE board.sessions (
    hash bytea PRIMARY KEY,                   -- sha256 of the cookie
    person bigint NOT NULL REFERENCES board.people ON DELETE CASCADE,
    how text NOT NULL,                        -- password, link, oidc
    made_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    until bigint NOT NULL
);
CREATE INDEX sessions_person ON board.sessions (person);

-- A link that lets its holder choose a password, once.
CREATE TABLE board.invitations (
    hash bytea PRIMARY KEY,
    person bigint NOT NULL REFERENCES board.people ON DELETE CASCADE,
    made_at bigint NOT NULL,
    made_by text NOT NULL,
    until bigint NOT NULL,
    used_at bigint
);

CREATE TABLE board.tokens (
    id bigserial PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    person bigint NOT NULL REFERENCES board.people ON DELETE CASCADE,
    name text NOT NULL,
    reads_only boolean NOT NULL DEFAULT false,
    made_at bigint NOT NULL,
    until bigint NOT NULL,
    seen_at bigint,
    revoked_at bigint
);

-- Passwords that were wrong. whence: keyed hash of the client's address, so that nobody's address is kept.
CREATE TABLE board.failures (
    login text NOT NULL,
    whence text NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX failures_login ON board.failures (login, at);
CREATE INDEX failures_at ON board.failures (at);

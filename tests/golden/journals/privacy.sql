BEGIN TRANSACTION;
CREATE TABLE attempts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'open' CHECK (outcome IN ('open', 'closed', 'committed', 'abandoned')),
    reason TEXT NOT NULL DEFAULT '',
    accepted TEXT NOT NULL DEFAULT '[]',
    closed_at REAL,
    UNIQUE (run_id, round, attempt)
);
INSERT INTO "attempts" VALUES(1,'f473652fb1e1f9cc',1,1,'{"attempt":1,"base_digest":"e3349bb5e86c2e6755d4455e8d2c363563b973eca851c29c55f9e288b09c39d6","base_version":0,"cohort":["a","b","c","d"],"opened_at":1796101317.373946,"round":1}','committed','','["a","b","c","d"]',1.79610131787568688393e+09);
INSERT INTO "attempts" VALUES(2,'f473652fb1e1f9cc',2,1,'{"attempt":1,"base_digest":"5d268d2335675700c9c81783ba0a90c5f4913e700924fe169ff5fa1bf541b678","base_version":1,"cohort":["a","b","c","d"],"opened_at":1796101317.8936148,"round":2}','committed','','["a","b","c","d"]',1.79610131794896698003e+09);
INSERT INTO "attempts" VALUES(3,'f473652fb1e1f9cc',3,1,'{"attempt":1,"base_digest":"9f3102cc74ec84199c2e108d61181c9184d5a22506f7ad1a2231c12c8552b827","base_version":2,"cohort":["a","b","c","d"],"opened_at":1796101317.9529471,"round":3}','committed','','["a","b","c","d"]',1.79610131799993348123e+09);
CREATE TABLE bindings (client TEXT PRIMARY KEY, worker TEXT NOT NULL, bound_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    key_digest TEXT NOT NULL,
    certificate TEXT NOT NULL,
    issued_at REAL NOT NULL,
    expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE chain (
    run_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_id, number),
    FOREIGN KEY (run_id, number) REFERENCES versions (run_id, number)
) WITHOUT ROWID;
INSERT INTO "chain" VALUES('f473652fb1e1f9cc',0,'da17661f9656b5233db261c0d224e9e62831c1e7f4345f0196f50c167fc318d8');
INSERT INTO "chain" VALUES('f473652fb1e1f9cc',1,'1bcae2fc1d2b55bbde0ae5418cded6572ae6484a17d010b83cdd7ba03829e3cf');
INSERT INTO "chain" VALUES('f473652fb1e1f9cc',2,'f4db875d3f5bb2e1c1141279ae26f9d38175126baae6660c97f8db4270c02e31');
INSERT INTO "chain" VALUES('f473652fb1e1f9cc',3,'d710a7855194a813b3176464450207a367d1fdff4c2d43713f1b0b4aa142b4d9');
CREATE TABLE chronicles (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (run_id, round, attempt),
    FOREIGN KEY (run_id, round, attempt) REFERENCES attempts (run_id, round, attempt)
);
INSERT INTO "chronicles" VALUES(1,'f473652fb1e1f9cc',1,1,'{"a":{"dropped":0,"notes":[[1796101317.375134,"asked","","w"],[1796101317.8344948,"accepted","","w"]]},"b":{"dropped":0,"notes":[[1796101317.375134,"asked","","w"],[1796101317.8344948,"accepted","","w"]]},"c":{"dropped":0,"notes":[[1796101317.375134,"asked","","w"],[1796101317.8344948,"accepted","","w"]]},"d":{"dropped":0,"notes":[[1796101317.375134,"asked","","w"],[1796101317.8344948,"accepted","","w"]]}}');
INSERT INTO "chronicles" VALUES(2,'f473652fb1e1f9cc',2,1,'{"a":{"dropped":0,"notes":[[1796101317.8978767,"asked","","w"],[1796101317.9149463,"accepted","","w"]]},"b":{"dropped":0,"notes":[[1796101317.8978767,"asked","","w"],[1796101317.9149463,"accepted","","w"]]},"c":{"dropped":0,"notes":[[1796101317.8978767,"asked","","w"],[1796101317.9149463,"accepted","","w"]]},"d":{"dropped":0,"notes":[[1796101317.8978767,"asked","","w"],[1796101317.9149463,"accepted","","w"]]}}');
INSERT INTO "chronicles" VALUES(3,'f473652fb1e1f9cc',3,1,'{"a":{"dropped":0,"notes":[[1796101317.954124,"asked","","w"],[1796101317.9692807,"accepted","","w"]]},"b":{"dropped":0,"notes":[[1796101317.954124,"asked","","w"],[1796101317.9692807,"accepted","","w"]]},"c":{"dropped":0,"notes":[[1796101317.954124,"asked","","w"],[1796101317.9692807,"accepted","","w"]]},"d":{"dropped":0,"notes":[[1796101317.954124,"asked","","w"],[1796101317.9692807,"accepted","","w"]]}}');
CREATE TABLE clients (
    client TEXT PRIMARY KEY,
    registered_at REAL NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO "clients" VALUES('a',1.79610131432346725463e+09,0);
INSERT INTO "clients" VALUES('b',1.79610131432346725463e+09,0);
INSERT INTO "clients" VALUES('c',1.79610131432346725463e+09,0);
INSERT INTO "clients" VALUES('d',1.79610131432346725463e+09,0);
CREATE TABLE evaluations (
    run_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL,
    evaluated_at REAL NOT NULL,
    PRIMARY KEY (run_id, version),
    FOREIGN KEY (run_id, version) REFERENCES versions (run_id, number)
) WITHOUT ROWID;
CREATE TABLE federation (id TEXT NOT NULL);
INSERT INTO "federation" VALUES('f0435b8473c01687e4b5775ffd2569d1');
CREATE TABLE flags (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE granted_workers (worker TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE join_tokens (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    clients TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    withdrawn_at REAL,
    used_at REAL,
    serial TEXT REFERENCES certificates (serial),
    CHECK ((used_at IS NULL) = (serial IS NULL)),
    CHECK (used_at IS NULL OR withdrawn_at IS NULL)
);
CREATE TABLE members (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    client TEXT NOT NULL REFERENCES clients (client),
    place INTEGER,
    scaling TEXT,
    last_committed_round INTEGER NOT NULL DEFAULT 0,
    rounds_included INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, client),
    UNIQUE (run_id, place)
) WITHOUT ROWID;
INSERT INTO "members" VALUES('f473652fb1e1f9cc','a',0,NULL,3,3);
INSERT INTO "members" VALUES('f473652fb1e1f9cc','b',1,NULL,3,3);
INSERT INTO "members" VALUES('f473652fb1e1f9cc','c',2,NULL,3,3);
INSERT INTO "members" VALUES('f473652fb1e1f9cc','d',3,NULL,3,3);
CREATE TABLE revocations (
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    revoked_at REAL NOT NULL,
    PRIMARY KEY (role, name)
) WITHOUT ROWID;
CREATE TABLE runs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    record TEXT NOT NULL,
    finished INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "runs" VALUES(1,'f473652fb1e1f9cc','{"artefacts":[],"config":{"limits":{"max_client_weight":65536,"max_message_bytes":2621440},"method":{"config":{"length":500.0,"parameters":16},"name":"/opt/method/straight.py"},"privacy":{"clip_norm":2.0,"delta":0.0001,"mechanism":"central","min_honest":2,"noise_multiplier":0.5},"round":{"cohort_size":4,"deadline_quantile":null,"max_client_failures":3,"min_updates":4,"over_selection":1.0},"run":{"clients":["a","b","c","d"],"expected_clients":null,"mode":"elastic","rounds":3,"seed":5,"threads":1},"secure_aggregation":{"assumed_corrupt":0.1,"clip":1.0,"level":"off","max_client_weight":1024,"min_participants":2,"ring_bits":24,"tolerated_dropout":0.2},"strategy":{"learning_rate":1.0,"momentum":0.9,"name":"average"},"wire":{"delta_encoding":"float32","update_encoding":"float16"}},"created_at":1796101314.299513,"declaration":{"artefacts":[],"client_evaluation":false,"config":{"length":500.0,"parameters":16},"groups":[{"collect":false,"compress":true,"max_abs":1000.0,"name":"encoder","norm_bound":1000.0,"optimise":true,"reducer":"weighted_mean"}],"method":"straight","needs_images":false,"needs_labels":false,"persists_client_state":false,"quality":null,"round_artefacts":[],"scaling":null,"schedules":{},"server_hook":false,"spec":{"digest":"1f427aeb7f2b878206e6b23b0a92f01123ce31d806707bfbc725ee7841dbe4ac","format":"ssd-spec-v1","tensors":[{"group":"encoder","kind":"parameter","name":"weight","offset":0,"shape":[16]}]},"statistics":[{"collect":false,"max_abs":1000000000.0,"name":"loss_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"batches","shape":[]}],"version":1},"declaration_blob":["e6138a79942449ac207a2d3072e24fd2af7ad635c21912a205583df6c881e466",768],"declaration_digest":"39973be117642faa08c0efd0d8f19452dd2f4e20e4c69d0fb3ec3c49e7980c8e","run_id":"f473652fb1e1f9cc"}',1);
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO "schema_version" VALUES(6);
CREATE TABLE secure_sums (
    run_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (run_id, round, attempt),
    FOREIGN KEY (run_id, round, attempt) REFERENCES attempts (run_id, round, attempt)
) WITHOUT ROWID;
CREATE TABLE versions (
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    number INTEGER NOT NULL,
    record TEXT NOT NULL,
    committed_at REAL NOT NULL,
    retained INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (run_id, number)
);
INSERT INTO "versions" VALUES('f473652fb1e1f9cc',0,'{"artefacts":[],"attempt":0,"delta":null,"full":["bb8bb2766f2646f48d2383c3a90cd809886e7ad3650c71d4135f41c64ce648fb",64],"model_digest":"e3349bb5e86c2e6755d4455e8d2c363563b973eca851c29c55f9e288b09c39d6","number":0,"round":0,"server_state":{},"statistics":{}}',1.79610131432344722742e+09,0);
INSERT INTO "versions" VALUES('f473652fb1e1f9cc',1,'{"artefacts":[],"attempt":1,"delta":["e84fe84749c6df52142718be3b5b43ccd4065d67c3ca7a8312d4d27aa62629fd",64],"full":["e84fe84749c6df52142718be3b5b43ccd4065d67c3ca7a8312d4d27aa62629fd",64],"model_digest":"5d268d2335675700c9c81783ba0a90c5f4913e700924fe169ff5fa1bf541b678","number":1,"round":1,"server_state":{},"statistics":{"bytes_down":832.0,"bytes_up":48.0,"clients":4.0,"privacy_delta":0.0001,"privacy_epsilon":9.655029505497836,"privacy_honest":1.0,"privacy_round_epsilon":9.655029505497836,"seconds":0.5007170390017563,"step_norm":1.6909145142588522,"weight":4.0}}',1.79610131787568688393e+09,1);
INSERT INTO "versions" VALUES('f473652fb1e1f9cc',2,'{"artefacts":[],"attempt":1,"delta":["93b2f2215ea747f7ef87418136c3496870ea9ebc154be8f59542f9d0c5ee8821",64],"full":["ca4c3bf9fd7c9725e6adef7ff565ba42b91790c58b962b75206d1a1dc425d829",64],"model_digest":"9f3102cc74ec84199c2e108d61181c9184d5a22506f7ad1a2231c12c8552b827","number":2,"round":2,"server_state":{},"statistics":{"bytes_down":64.0,"bytes_up":48.0,"clients":4.0,"privacy_delta":0.0001,"privacy_epsilon":15.659660077449802,"privacy_honest":1.0,"privacy_round_epsilon":9.655029505497836,"seconds":0.05134717900000396,"step_norm":2.1608166090551855,"weight":4.0}}',1.79610131794896698003e+09,1);
INSERT INTO "versions" VALUES('f473652fb1e1f9cc',3,'{"artefacts":[],"attempt":1,"delta":["f7affc07b50d93db0a8c4673b12d5896b860c328c9fffd8f882315d706bc15ca",64],"full":["a6d70ee51abc948346117417a393b53ecad9241cd12bca729133168919a47440",64],"model_digest":"d505dc855a9ff63fd9e84aa72cb0f35918dc0e829e0866812d5ebe7dff1c8b65","number":3,"round":3,"server_state":{},"statistics":{"bytes_down":64.0,"bytes_up":48.0,"clients":4.0,"privacy_delta":0.0001,"privacy_epsilon":19.8327474152935,"privacy_honest":1.0,"privacy_round_epsilon":9.655029505497836,"seconds":0.04608703599660657,"step_norm":2.2800992388627517,"weight":4.0}}',1.79610131799993348123e+09,1);
CREATE UNIQUE INDEX one_attempt_in_flight ON attempts (run_id) WHERE outcome IN ('open', 'closed');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('attempts',3);
INSERT INTO "sqlite_sequence" VALUES('chronicles',3);
COMMIT;

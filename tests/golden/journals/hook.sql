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
INSERT INTO "attempts" VALUES(1,'43fc70103693e9a6',1,1,'{"attempt":1,"base_digest":"9dab5f5d8a4a8259e4de18dc44fbd895b78fd4b221f5cf2aabbb1d6e8e78c4b3","base_version":0,"cohort":["a","b"],"opened_at":1796098938.567012,"round":1}','committed','','["a","b"]',1.79609893942629766459e+09);
INSERT INTO "attempts" VALUES(2,'43fc70103693e9a6',2,1,'{"attempt":1,"base_digest":"665a082098a3383b6dbe19c086dad18b3195903ef18fe2946e4850aa70de3d92","base_version":1,"cohort":["a","b"],"opened_at":1796098939.4290855,"round":2}','committed','','["a","b"]',1.79609894006908059121e+09);
INSERT INTO "attempts" VALUES(3,'43fc70103693e9a6',3,1,'{"attempt":1,"base_digest":"9abfab08519b189830c7efcffc7ab99f9c28b7edf1fb020f68643772fa67c82c","base_version":2,"cohort":["a","b"],"opened_at":1796098940.0720625,"round":3}','committed','','["a","b"]',1.79609894071302866932e+09);
INSERT INTO "attempts" VALUES(4,'43fc70103693e9a6',4,1,'{"attempt":1,"base_digest":"0348a4732b671d8700bca3db2275dbe25a0f78cbf1afe69f24b20d7ed1d5a5bc","base_version":3,"cohort":["a","b"],"opened_at":1796098940.7173495,"round":4}','open','','[]',NULL);
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
INSERT INTO "chain" VALUES('43fc70103693e9a6',0,'0be9c483330abba27f9a55ef1b91ac6859f32b109867a135e885054282f8b19e');
INSERT INTO "chain" VALUES('43fc70103693e9a6',1,'b1f3c8c58a43b3b8dae8567d7d1e7b1c45798db08478be3f5ae3faeaf219a5cf');
INSERT INTO "chain" VALUES('43fc70103693e9a6',2,'5a22465b9984b55c41bf01455ba3fb7602aec2ffb45cd3389f15ff04dc79a36c');
INSERT INTO "chain" VALUES('43fc70103693e9a6',3,'190a14fdc4dadd1a8e28b745447e799b1a8dc0dc94ee56dd411df91e56cc486b');
CREATE TABLE chronicles (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (run_id, round, attempt),
    FOREIGN KEY (run_id, round, attempt) REFERENCES attempts (run_id, round, attempt)
);
INSERT INTO "chronicles" VALUES(1,'43fc70103693e9a6',1,1,'{"a":{"dropped":0,"notes":[[1796098938.5681386,"asked","","w"],[1796098939.3087595,"accepted","","w"]]},"b":{"dropped":0,"notes":[[1796098938.5681386,"asked","","w"],[1796098939.3087595,"accepted","","w"]]}}');
INSERT INTO "chronicles" VALUES(2,'43fc70103693e9a6',2,1,'{"a":{"dropped":0,"notes":[[1796098939.4302158,"asked","","w"],[1796098940.053632,"accepted","","w"]]},"b":{"dropped":0,"notes":[[1796098939.4302158,"asked","","w"],[1796098940.053632,"accepted","","w"]]}}');
INSERT INTO "chronicles" VALUES(3,'43fc70103693e9a6',3,1,'{"a":{"dropped":0,"notes":[[1796098940.0732467,"asked","","w"],[1796098940.697081,"accepted","","w"]]},"b":{"dropped":0,"notes":[[1796098940.0732467,"asked","","w"],[1796098940.697081,"accepted","","w"]]}}');
CREATE TABLE clients (
    client TEXT PRIMARY KEY,
    registered_at REAL NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO "clients" VALUES('a',1.79609893800921773909e+09,0);
INSERT INTO "clients" VALUES('b',1.79609893800921773909e+09,0);
CREATE TABLE evaluations (
    run_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL,
    evaluated_at REAL NOT NULL,
    PRIMARY KEY (run_id, version),
    FOREIGN KEY (run_id, version) REFERENCES versions (run_id, number)
) WITHOUT ROWID;
INSERT INTO "evaluations" VALUES('43fc70103693e9a6',0,'{"parameter_mean":-0.022834046902062255,"parameter_norm":0.3069216170623404,"synthetic_accuracy":0.0}',1.79609893930434036252e+09);
INSERT INTO "evaluations" VALUES('43fc70103693e9a6',1,'{"parameter_mean":-0.0229897498338687,"parameter_norm":0.30692485197604963,"synthetic_accuracy":0.09090909090909091}',1.79609894005136609077e+09);
INSERT INTO "evaluations" VALUES('43fc70103693e9a6',2,'{"parameter_mean":-0.022866795812660712,"parameter_norm":0.3069082257677929,"synthetic_accuracy":0.16666666666666666}',1.79609894069463944428e+09);
CREATE TABLE federation (id TEXT NOT NULL);
INSERT INTO "federation" VALUES('c1f316a3f0314a9a3c69f71a077127bc');
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
INSERT INTO "members" VALUES('43fc70103693e9a6','a',0,NULL,3,3);
INSERT INTO "members" VALUES('43fc70103693e9a6','b',1,NULL,3,3);
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
INSERT INTO "runs" VALUES(1,'43fc70103693e9a6','{"artefacts":[],"config":{"limits":{"max_client_weight":65536,"max_message_bytes":2621440},"method":{"config":{"hook":true,"parameters":16,"train_seconds":0.3},"name":"synthetic"},"privacy":{"clip_norm":1.0,"delta":1e-05,"mechanism":"off","min_honest":2,"noise_multiplier":1.0},"round":{"cohort_size":2,"deadline_quantile":null,"max_client_failures":3,"min_updates":1,"over_selection":1.0},"run":{"clients":["a","b"],"expected_clients":null,"mode":"reproducible","rounds":400,"seed":5,"threads":1},"secure_aggregation":{"assumed_corrupt":0.1,"clip":1.0,"level":"off","max_client_weight":1024,"min_participants":2,"ring_bits":24,"tolerated_dropout":0.2},"strategy":{"learning_rate":1.0,"momentum":0.9,"name":"average"},"wire":{"delta_encoding":"float16","update_encoding":"float16"}},"created_at":1796098938.008104,"declaration":{"artefacts":[],"client_evaluation":false,"config":{"artefacts":{},"client_evaluation":false,"collect":false,"fail_clients":{},"fail_rounds":[],"hook":true,"hook_seconds":0.0,"max_weight":64,"parameters":16,"scale":0.01,"scaling":null,"schedules":{},"state":true,"tensors":null,"train_seconds":0.3},"groups":[{"collect":false,"compress":true,"max_abs":0.08,"name":"encoder","norm_bound":0.14966629547095767,"optimise":true,"reducer":"weighted_mean"},{"collect":false,"compress":false,"max_abs":0.08,"name":"buffers","norm_bound":0.05656854249492381,"optimise":false,"reducer":"plain_mean"}],"method":"synthetic","needs_images":false,"needs_labels":false,"persists_client_state":true,"quality":null,"round_artefacts":[{"name":"drift","shape":[4,8]}],"scaling":null,"schedules":{},"server_hook":true,"spec":{"digest":"058949c99f42aedfc8e2efaf2107d7900c667cd3203954a5767de1488d129f7a","format":"ssd-spec-v1","tensors":[{"group":"encoder","kind":"parameter","name":"layer0.weight","offset":0,"shape":[3]},{"group":"encoder","kind":"parameter","name":"layer1.weight","offset":3,"shape":[7]},{"group":"encoder","kind":"parameter","name":"layer2.weight","offset":10,"shape":[3]},{"group":"encoder","kind":"parameter","name":"layer3.weight","offset":13,"shape":[1]},{"group":"buffers","kind":"buffer","name":"norm.running_mean","offset":14,"shape":[1]},{"group":"buffers","kind":"variance","name":"norm.running_var","offset":15,"shape":[1]}]},"statistics":[{"collect":false,"max_abs":1000000000.0,"name":"loss_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"batches","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"alignment_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"uniformity_sum","shape":[]}],"version":1},"declaration_blob":["dfd5e5d2ee748d5c4c189a19a995f2d315cf669a3c9499b6470e2d01d749a548",1752],"declaration_digest":"2df74829f1364b3101eec626d4fb36986ed706ee10684c54196b324169d6f104","run_id":"43fc70103693e9a6"}',0);
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
INSERT INTO "versions" VALUES('43fc70103693e9a6',0,'{"artefacts":[],"attempt":0,"delta":null,"full":["d6ca494e0cbf8d059ac9b57f4283493693b531f20edf3ffd42aa9a9ffbaff169",64],"model_digest":"9dab5f5d8a4a8259e4de18dc44fbd895b78fd4b221f5cf2aabbb1d6e8e78c4b3","number":0,"round":0,"server_state":{},"statistics":{}}',1.79609893800920796392e+09,0);
INSERT INTO "versions" VALUES('43fc70103693e9a6',1,'{"artefacts":[["drift",["7ad0eab824f9877bb59b4b5713701e174dd2592e92269a3fbfc522aeca9465aa",128],[4,8]]],"attempt":1,"delta":["04c04258090293c1f063130b9839a8ad8bccd92bf6535460a33acf7dad6e02ef",44],"full":["dba3b7ab349d4964bdfbeb65d52326f9f15aabbd6d7e0818794ba2425279e482",64],"model_digest":"665a082098a3383b6dbe19c086dad18b3195903ef18fe2946e4850aa70de3d92","number":1,"round":1,"server_state":{"hook.calls":["31921ecef3cd69210772e44142b5204806defbb109a146b1365091cff9005764",136],"hook.chain":["f8bd5ddb46b75111035dc44161cee626c281f645c992e5ddffffc6a45b13a6e2",160],"residual":["2b05e66abebbd7bb9b516efa56c08742bff2465754daa99f61544b41cd5a2aa9",64]},"statistics":{"alignment":0.5310454231592409,"batches":69.0,"bytes_down":1816.0,"bytes_up":164.0,"clients":2.0,"hook_calls":1.0,"loss":1.0620908463184817,"seconds":0.8583636729999853,"step_norm":0.0028284032380473667,"uniformity":-2.124181692643712,"weight":69.0}}',1.79609893942629766459e+09,1);
INSERT INTO "versions" VALUES('43fc70103693e9a6',2,'{"artefacts":[["drift",["dfd0cbb2b66801c48859f8dd00097f5015c5d3034fb63a42cf0064d1aff36fa5",128],[4,8]]],"attempt":1,"delta":["9300cc91c85ca860304748a7e1da79a83fdc118045de8fe374426f87fc82e2c0",44],"full":["a527ad6b78c8acae741e7f2d3b9feafce33dbd8619445b2ff76feb5ffb634ae5",64],"model_digest":"9abfab08519b189830c7efcffc7ab99f9c28b7edf1fb020f68643772fa67c82c","number":2,"round":2,"server_state":{"hook.calls":["3e2eaf8acccf4f64b480a4e7c8d745da7c023b8fa227b658e098d3ba87063885",136],"hook.chain":["7960dd6613211a63a7822c6455834643a82b3b743d748f94ef2e5eba641dc88a",160],"residual":["ecae3a07d1af555dd2f9ec54c87f936d454c8ae62d667959c3750a4fab14fd35",64]},"statistics":{"alignment":0.29315431449103396,"batches":69.0,"bytes_down":172.0,"bytes_up":164.0,"clients":2.0,"hook_calls":2.0,"loss":0.5863086289820679,"seconds":0.6390788810003869,"step_norm":0.0021252374083548567,"uniformity":-1.1726172579573872,"weight":69.0}}',1.79609894006908059121e+09,1);
INSERT INTO "versions" VALUES('43fc70103693e9a6',3,'{"artefacts":[["drift",["fd65a7718dd02d01fe11f543429b5bbaef34f68fbe6f08f0f2c963dc8a8e8d68",128],[4,8]]],"attempt":1,"delta":["57a72919cb4ccb2aa87c406bd444e681b8b663a5a1045eaee2c7f28e162637a5",44],"full":["674100bb57ce4b8feb66b865f8bf69c2f34a2869fd3e931bfa7866def82da3ee",64],"model_digest":"0348a4732b671d8700bca3db2275dbe25a0f78cbf1afe69f24b20d7ed1d5a5bc","number":3,"round":3,"server_state":{"hook.calls":["58cc44acf651b9e0487dbeca4774f330370dee1a2f2548b819726cf34b9457ad",136],"hook.chain":["756961ad826bfe0bb0bd7092de07cb0e92f5bea5ce734cecbf17457658f59ab9",160],"residual":["3b44f3c62ce9081ee345f8eeac164092d4dd39585422b000bf5fb9dd6a4201e1",64]},"statistics":{"alignment":0.19457722690118395,"batches":69.0,"bytes_down":172.0,"bytes_up":180.0,"clients":2.0,"hook_calls":3.0,"loss":0.3891544538091166,"seconds":0.6399873350001144,"step_norm":0.0014030102459919819,"uniformity":-0.7783089076182332,"weight":69.0}}',1.79609894071302866932e+09,1);
CREATE UNIQUE INDEX one_attempt_in_flight ON attempts (run_id) WHERE outcome IN ('open', 'closed');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('attempts',4);
INSERT INTO "sqlite_sequence" VALUES('chronicles',3);
COMMIT;

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
INSERT INTO "attempts" VALUES(1,'e21dcf4cf6e570d1',1,1,'{"attempt":1,"base_digest":"f5e524d13e7c67d8b8d926442d63607a4b14bb8afab2dd60371baab2f98ea53f","base_version":0,"cohort":["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"],"opened_at":1796098946.1015477,"round":1}','committed','','["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"]',1.79609894819842243196e+09);
INSERT INTO "attempts" VALUES(2,'e21dcf4cf6e570d1',2,1,'{"attempt":1,"base_digest":"e82e22c2e4205bffd482c2215bec39247dcd4115dc52c59bd382e9acec4bfa6e","base_version":1,"cohort":["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"],"opened_at":1796098948.2098808,"round":2}','committed','','["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"]',1.79609894978387022021e+09);
INSERT INTO "attempts" VALUES(3,'e21dcf4cf6e570d1',3,1,'{"attempt":1,"base_digest":"c3b148c588c5d1a32404744abd04fd3597483d3666111aadf5f37ae6aacd5dc5","base_version":2,"cohort":["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"],"opened_at":1796098949.7879984,"round":3}','committed','','["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"]',1.79609895102406597142e+09);
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
INSERT INTO "chain" VALUES('e21dcf4cf6e570d1',0,'cd997072d8cea6016dfda824be2480c60a99a12650bcf01cf4428e654258b11d');
INSERT INTO "chain" VALUES('e21dcf4cf6e570d1',1,'c2dbc95b75f33a4d9927b2ca31d9afa43c04b5390c50f02466b98aa963feb08c');
INSERT INTO "chain" VALUES('e21dcf4cf6e570d1',2,'a2dd3656b932f8a4be93de130073b9f03891695089aa933122d379f461a20ff6');
INSERT INTO "chain" VALUES('e21dcf4cf6e570d1',3,'9a755b45f162681d454281c6562a2bb1509c8ca546cdfc2eb1d98cbb7cc3517b');
CREATE TABLE chronicles (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (run_id, round, attempt),
    FOREIGN KEY (run_id, round, attempt) REFERENCES attempts (run_id, round, attempt)
);
INSERT INTO "chronicles" VALUES(1,'e21dcf4cf6e570d1',1,1,'{"client-000":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-001":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-002":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-003":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-004":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-005":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-006":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-007":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-008":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]},"client-009":{"dropped":0,"notes":[[1796098946.1031263,"asked","","w"],[1796098948.1152673,"accepted","","w"]]}}');
INSERT INTO "chronicles" VALUES(2,'e21dcf4cf6e570d1',2,1,'{"client-000":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-001":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-002":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-003":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-004":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-005":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-006":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-007":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-008":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]},"client-009":{"dropped":0,"notes":[[1796098948.212777,"asked","","w"],[1796098949.7398548,"accepted","","w"]]}}');
INSERT INTO "chronicles" VALUES(3,'e21dcf4cf6e570d1',3,1,'{"client-000":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-001":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-002":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-003":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-004":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-005":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-006":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-007":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-008":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]},"client-009":{"dropped":0,"notes":[[1796098949.7918105,"asked","","w"],[1796098950.5240126,"accepted","","w"]]}}');
CREATE TABLE clients (
    client TEXT PRIMARY KEY,
    registered_at REAL NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO "clients" VALUES('client-000',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-001',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-002',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-003',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-004',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-005',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-006',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-007',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-008',1.79609894474027752871e+09,0);
INSERT INTO "clients" VALUES('client-009',1.79609894474027752871e+09,0);
CREATE TABLE evaluations (
    run_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL,
    evaluated_at REAL NOT NULL,
    PRIMARY KEY (run_id, version),
    FOREIGN KEY (run_id, version) REFERENCES versions (run_id, number)
) WITHOUT ROWID;
INSERT INTO "evaluations" VALUES('e21dcf4cf6e570d1',0,'{"alignment":0.011522363109867737,"alignment_samples":1437.0,"effective_rank":11.005946334784712,"effective_rank_samples":1437.0,"knn_2_per_class":0.5644444444444444,"knn_2_per_class_std":0.034772186273969094,"knn_all":0.9277777777777778,"knn_k":20.0,"labelled_samples_2_per_class":20.0,"linear_probe_2_per_class":0.5933333333333334,"linear_probe_2_per_class_std":0.03672554195786316,"linear_probe_all":0.9611111111111111,"test_samples":360.0,"train_samples":1437.0,"uniformity_clients":10.0,"uniformity_global":0.03583492708240263,"uniformity_inter":0.03599216730780182,"uniformity_intra":0.03484599371063946,"uniformity_samples":1437.0}',1.79609894923811745648e+09);
CREATE TABLE federation (id TEXT NOT NULL);
INSERT INTO "federation" VALUES('cbb50be379f13d8a9022fc1aa9768a97');
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
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-000',0,'{"alpha":10.0,"dimension":128,"indices":[6,8,11,33,61,62,64,73,95,103,106,109]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-001',1,'{"alpha":10.0,"dimension":128,"indices":[4,10,19,22,23,26,63,78,86,97,107,126]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-002',2,'{"alpha":10.0,"dimension":128,"indices":[9,32,54,59,69,80,85,90,96,117,121,127]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-003',3,'{"alpha":10.0,"dimension":128,"indices":[5,20,39,70,74,76,99,102,113,120,122,123]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-004',4,'{"alpha":10.0,"dimension":128,"indices":[3,12,13,18,34,40,48,51,58,93,98,115]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-005',5,'{"alpha":10.0,"dimension":128,"indices":[7,44,47,55,72,88,91,92,108,112,116,124]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-006',6,'{"alpha":10.0,"dimension":128,"indices":[30,35,36,37,46,75,81,94,100,110,114,118]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-007',7,'{"alpha":10.0,"dimension":128,"indices":[15,16,27,28,29,50,60,65,67,82,87,125]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-008',8,'{"alpha":10.0,"dimension":128,"indices":[1,2,14,24,38,41,43,52,56,71,79,104]}',3,3);
INSERT INTO "members" VALUES('e21dcf4cf6e570d1','client-009',9,'{"alpha":10.0,"dimension":128,"indices":[0,21,25,31,42,45,49,53,57,89,101,105]}',3,3);
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
INSERT INTO "runs" VALUES(1,'e21dcf4cf6e570d1','{"artefacts":[["basis",["08194c14b502d6e19033504c7b3055e34f8291c739ac3b944c27299f8065cc6e",65536],[128,128]],["quality_frequencies_h",["28cdb99bda7a7ad9518c178dc09389540f3e87d6a80e8206d1bbd23e0e117a67",2097152],[4096,128]]],"config":{"limits":{"max_client_weight":65536,"max_message_bytes":2621440},"method":{"config":{"batch_size":32,"image":{"channels":1,"size":8},"local_epochs":1,"lr":0.05,"model":{"name":"small"},"quality":{"features":["h"],"images":150,"min_images":64},"views":"digits"},"name":"ssd"},"privacy":{"clip_norm":1.0,"delta":1e-05,"mechanism":"off","min_honest":2,"noise_multiplier":1.0},"round":{"cohort_size":10,"deadline_quantile":null,"max_client_failures":3,"min_updates":1,"over_selection":1.0},"run":{"clients":["client-000","client-001","client-002","client-003","client-004","client-005","client-006","client-007","client-008","client-009"],"expected_clients":null,"mode":"reproducible","rounds":3,"seed":5,"threads":1},"secure_aggregation":{"assumed_corrupt":0.1,"clip":1.0,"level":"off","max_client_weight":1024,"min_participants":2,"ring_bits":24,"tolerated_dropout":0.2},"strategy":{"learning_rate":1.0,"momentum":0.9,"name":"average"},"wire":{"delta_encoding":"float16","update_encoding":"float16"}},"created_at":1796098944.7385883,"declaration":{"artefacts":["basis"],"client_evaluation":false,"config":{"allocation":"auto","alpha":10.0,"assignment":"client","basis":"rotated","batch_size":32,"block":null,"bounds":{"buffer_max_abs":10000.0,"buffer_norm":1000000.0,"parameter_max_abs":16.0,"parameter_norm":1000.0},"buffers":"averaged","drop_last":true,"image":{"channels":1,"size":8},"local_epochs":1,"losses":{"alignment":{"normalise":true},"beta":1.0,"delta":0.1,"distillation":{"divergence":"kl_z_h","normalise":false,"stop_gradient":"none","temperature":0.5},"dsr":{"normalise_input":true,"normalise_target":true,"reduction":"frobenius","separation":"soft","stop_gradient":true},"gamma":1.0,"uniformity":{"normalise":true,"t":2.0}},"lr":0.05,"mixed_precision":false,"model":{"feature_dim":128,"name":"small","width":32},"momentum":0.9,"preset":"official","projector":{"hidden_dim":512,"out_dim":128},"quality":{"features":["h"],"frequencies":4096,"images":150,"min_images":64},"start":"received","views":{"brightness":0.4,"contrast":0.4,"flip":0.0,"grey":0.0,"hue":0.2,"jitter":0.8,"preset":"digits","ratio":[0.75,1.3333333333333333],"rotation_degrees":15.0,"saturation":0.8,"scale":[0.5,1.0]},"weight_decay":0.0001,"weighting":"batches"},"groups":[{"collect":false,"compress":true,"max_abs":16.0,"name":"encoder","norm_bound":1000.0,"optimise":true,"reducer":"weighted_mean"},{"collect":false,"compress":true,"max_abs":16.0,"name":"projector","norm_bound":1000.0,"optimise":true,"reducer":"weighted_mean"},{"collect":false,"compress":false,"max_abs":10000.0,"name":"buffers","norm_bound":1000000.0,"optimise":false,"reducer":"plain_mean"}],"method":"ssd","needs_images":true,"needs_labels":false,"persists_client_state":false,"quality":{"features":{"h":128},"frequencies":4096,"images":150,"min_images":64,"t":2.0},"round_artefacts":[],"scaling":{"allocation":"auto","alpha":10.0,"assignment":"client","block":null,"dimension":128},"schedules":{"lr":0.05},"server_hook":false,"spec":{"digest":"2908fff323c5a589491fcdd1fa193f7f99a60e4c6da7e8b01031f38c99b76861","format":"ssd-spec-v1","tensors":[{"group":"encoder","kind":"parameter","name":"encoder.layers.0.weight","offset":0,"shape":[32,1,3,3]},{"group":"encoder","kind":"parameter","name":"encoder.layers.1.weight","offset":288,"shape":[32]},{"group":"encoder","kind":"parameter","name":"encoder.layers.1.bias","offset":320,"shape":[32]},{"group":"encoder","kind":"parameter","name":"encoder.layers.3.weight","offset":352,"shape":[64,32,3,3]},{"group":"encoder","kind":"parameter","name":"encoder.layers.4.weight","offset":18784,"shape":[64]},{"group":"encoder","kind":"parameter","name":"encoder.layers.4.bias","offset":18848,"shape":[64]},{"group":"encoder","kind":"parameter","name":"encoder.layers.6.weight","offset":18912,"shape":[128,64,3,3]},{"group":"encoder","kind":"parameter","name":"encoder.layers.7.weight","offset":92640,"shape":[128]},{"group":"encoder","kind":"parameter","name":"encoder.layers.7.bias","offset":92768,"shape":[128]},{"group":"projector","kind":"parameter","name":"projector.0.weight","offset":92896,"shape":[512,128]},{"group":"projector","kind":"parameter","name":"projector.0.bias","offset":158432,"shape":[512]},{"group":"projector","kind":"parameter","name":"projector.1.weight","offset":158944,"shape":[512]},{"group":"projector","kind":"parameter","name":"projector.1.bias","offset":159456,"shape":[512]},{"group":"projector","kind":"parameter","name":"projector.3.weight","offset":159968,"shape":[128,512]},{"group":"projector","kind":"parameter","name":"projector.3.bias","offset":225504,"shape":[128]},{"group":"buffers","kind":"buffer","name":"encoder.layers.1.running_mean","offset":225632,"shape":[32]},{"group":"buffers","kind":"variance","name":"encoder.layers.1.running_var","offset":225664,"shape":[32]},{"group":"buffers","kind":"buffer","name":"encoder.layers.4.running_mean","offset":225696,"shape":[64]},{"group":"buffers","kind":"variance","name":"encoder.layers.4.running_var","offset":225760,"shape":[64]},{"group":"buffers","kind":"buffer","name":"encoder.layers.7.running_mean","offset":225824,"shape":[128]},{"group":"buffers","kind":"variance","name":"encoder.layers.7.running_var","offset":225952,"shape":[128]},{"group":"buffers","kind":"buffer","name":"projector.1.running_mean","offset":226080,"shape":[512]},{"group":"buffers","kind":"variance","name":"projector.1.running_var","offset":226592,"shape":[512]}]},"statistics":[{"collect":false,"max_abs":1000000000.0,"name":"loss_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"alignment_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"uniformity_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"dsr_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"distillation_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"representation_norm_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"embedding_norm_sum","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"batches","shape":[]},{"collect":false,"max_abs":1000000000.0,"name":"images","shape":[]}],"version":1},"declaration_blob":["55d88ccf06ebbc110a5dc18768b0ff0b137c9a35070e339f7bd17824fccedfde",5086],"declaration_digest":"600de8636012be6417ca75afdb6f3fad2b3bad56c80becafb87ef5d6525115bf","run_id":"e21dcf4cf6e570d1"}',1);
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
INSERT INTO "versions" VALUES('e21dcf4cf6e570d1',0,'{"artefacts":[],"attempt":0,"delta":null,"full":["c2f3549031101284667031e063932c38b77f50e6548e179256ad4788f0aeda0b",908416],"model_digest":"f5e524d13e7c67d8b8d926442d63607a4b14bb8afab2dd60371baab2f98ea53f","number":0,"round":0,"server_state":{},"statistics":{}}',1.79609894474026298523e+09,0);
INSERT INTO "versions" VALUES('e21dcf4cf6e570d1',1,'{"artefacts":[],"attempt":1,"delta":["855f50f460d8c3a2c381e8579439ed20367df809f9838e5a37fbec4d36288f5c",457182],"full":["964bc857b4e3c2f6dfa9824366dccbb4ddb3619dc7ef27cba32eaa285f0b591e",908416],"model_digest":"e82e22c2e4205bffd482c2215bec39247dcd4115dc52c59bd382e9acec4bfa6e","number":1,"round":1,"server_state":{"residual":["46e8a1045fcd4091476e38aa5eccf591da96032d8a304c7694e02b863ad66d7e",908416]},"statistics":{"alignment":1.2422719670505058,"batches":41.0,"bytes_down":3076190.0,"bytes_up":1294582.0,"clients":10.0,"distillation":0.3443239738301533,"dsr":0.161115495170035,"embedding_norm":4.298659784037892,"images":1312.0,"loss":-1.5516497143884984,"quality_h_alignment":0.011956488137997004,"quality_h_clients":9.0,"quality_h_effective_rank":10.884487694684553,"quality_h_images":1085.0,"quality_h_uniformity_global":0.03557557818356352,"quality_h_uniformity_inter":0.03585161600733436,"quality_h_uniformity_intra":0.03352582797615053,"quality_version":0.0,"representation_norm":4.740828386167201,"seconds":2.0958638539996173,"step_norm":1.1964604736782172,"uniformity":-2.9894695805340277,"weight":41.0}}',1.79609894819842243196e+09,1);
INSERT INTO "versions" VALUES('e21dcf4cf6e570d1',2,'{"artefacts":[],"attempt":1,"delta":["eec5f64d65ca6fb96454f1499b4b1d24e5b3d0dc4387f7aee2813b2795e8201c",457182],"full":["4fdc5827f84bef856951fe235b811862830a45655c21731b884ff2d3e366224c",908416],"model_digest":"c3b148c588c5d1a32404744abd04fd3597483d3666111aadf5f37ae6aacd5dc5","number":2,"round":2,"server_state":{"residual":["e2d381bcae09f2fa40737d1701871ed735df7dc075683d33a74c7f6705946344",908416]},"statistics":{"alignment":1.2799410820007324,"batches":41.0,"bytes_down":457182.0,"bytes_up":1142005.0,"clients":10.0,"distillation":0.31341499235571885,"dsr":0.16089654441286877,"embedding_norm":4.255762239781822,"images":1312.0,"loss":-2.061778655866297,"representation_norm":4.729066744083312,"seconds":1.5714227949993074,"step_norm":0.8568347944569483,"uniformity":-3.533957789583904,"weight":41.0}}',1.79609894978387022021e+09,1);
INSERT INTO "versions" VALUES('e21dcf4cf6e570d1',3,'{"artefacts":[],"attempt":1,"delta":["b57f4ad941f69ba1eb292e5a08c8ff1fb023605474d756bd10c99f03d1598c1f",457182],"full":["c4f17a80016962fdffdbd90f801eb27c8c794a3d9d8f63dbc426f45b6fa81e02",908416],"model_digest":"98652e49b980e1231fbfe71b7aa0d9b9e00228bfc0e51f15bb117d9174a03383","number":3,"round":3,"server_state":{"residual":["009e69b053de2566101cca2383a57964087d88887428d61b20e6a295cfac140b",908416]},"statistics":{"alignment":1.251527751364359,"batches":41.0,"bytes_down":457182.0,"bytes_up":1294582.0,"clients":10.0,"distillation":0.31797135239694174,"dsr":0.16028110355865666,"embedding_norm":4.315452075586086,"images":1312.0,"loss":-2.1469814719223397,"quality_h_alignment":0.02854951395306178,"quality_h_clients":9.0,"quality_h_effective_rank":11.985956897834559,"quality_h_images":1085.0,"quality_h_uniformity_global":0.043476819804357796,"quality_h_uniformity_inter":0.043860560999494355,"quality_h_uniformity_intra":0.04062859722542008,"quality_version":2.0,"representation_norm":4.715639242311803,"seconds":1.2326094039999589,"step_norm":0.8005993125084504,"uniformity":-3.590587482219789,"weight":41.0}}',1.79609895102406597142e+09,1);
CREATE UNIQUE INDEX one_attempt_in_flight ON attempts (run_id) WHERE outcome IN ('open', 'closed');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',1);
INSERT INTO "sqlite_sequence" VALUES('attempts',3);
INSERT INTO "sqlite_sequence" VALUES('chronicles',3);
COMMIT;

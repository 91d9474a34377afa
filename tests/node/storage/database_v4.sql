BEGIN TRANSACTION;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "about" VALUES('feed','1b56473f21f38558b4ca62eb539ece80');
INSERT INTO "about" VALUES('network','b8edc510ccd4d631');
CREATE TABLE certificates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, outcome TEXT NOT NULL,
    document TEXT NOT NULL, UNIQUE (task, outcome)
) STRICT;
INSERT INTO "certificates" VALUES(1,'e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134','8d3218ae8e9fe886c5a9d0fac62bb6634645d2e7b21e4b232a2d7b7a1e46dce7','{"attempt":0,"network":"b8edc510ccd4d631","task":{"body":{"args":{"model":"helium/embedded-music","prompt":"80s pop track","seed":42},"class":"cpu","created":1750000000000,"deadline":600,"kind":"text-to-music","network":"b8edc510ccd4d631","nonce":"00000000000000000000000000000000","type":"task"},"signature":"H9i_XemquQpzPOIX6QuwawUJhl-Jk0BfG7fg2T6jfVBx-qfGgFy0LcAOVsVFnEQqI45yZw7y8y-oZ90zpH4lCA","signer":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui"},"type":"certificate","version":1,"votes":[{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"165f3183b287c6d0b5db85471e192eb6c51dc8bc24b902b85255732c20a16523","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"baa5eb63c17108b4573a2faa19245b8c81632cbc0e3e058aa68292653b4748de","12D3KooWRjMeASCyQQNm9XCjWkk7yHXwkQVBpZiQBtCVndiv248Z":"31a65c0b3b71407122a730ae9fe613b64a2af961ef73a7f9edaeb26e4af30256"},"network":"b8edc510ccd4d631","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"0386a382596919159075e19cfcc581f0ea503a5a5c09f0bcaa8fe697cba4d83c","task":"e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134","trace":{"seconds":1},"type":"reveal"},"signature":"Hd4djep-Nlvwz1GSBYpWq78Q3ZBC8B7P_nzFhAM6-Oq9F9YE61FKNrChhagOTsQiQ9K2ttw-VYm1mb3by-gIAQ","signer":"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E"},{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"165f3183b287c6d0b5db85471e192eb6c51dc8bc24b902b85255732c20a16523","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"baa5eb63c17108b4573a2faa19245b8c81632cbc0e3e058aa68292653b4748de","12D3KooWRjMeASCyQQNm9XCjWkk7yHXwkQVBpZiQBtCVndiv248Z":"31a65c0b3b71407122a730ae9fe613b64a2af961ef73a7f9edaeb26e4af30256"},"network":"b8edc510ccd4d631","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"44f6ecea51a276e87db41cf2c3274d7fc2033b4aeb01fbec6bdf31b02679192d","task":"e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134","trace":{"seconds":1},"type":"reveal"},"signature":"4NT7-e31-ql76zQP5g7wt9OoGQbf6TFuXa6jax3sj4vd1yV9gTIFWj9WWX3scPaC48YzqiD2mlflnI9YCQhtBg","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"},{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"165f3183b287c6d0b5db85471e192eb6c51dc8bc24b902b85255732c20a16523","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"baa5eb63c17108b4573a2faa19245b8c81632cbc0e3e058aa68292653b4748de","12D3KooWRjMeASCyQQNm9XCjWkk7yHXwkQVBpZiQBtCVndiv248Z":"31a65c0b3b71407122a730ae9fe613b64a2af961ef73a7f9edaeb26e4af30256"},"network":"b8edc510ccd4d631","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"a5c6e90252e9508b143fa1ae2a5d4e9c77fb4eb82a05db3e9171cba7cb1baef1","task":"e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134","trace":{"seconds":1},"type":"reveal"},"signature":"DrU1m-bab2mutZaSqI3FWp-FNZzJ3hmk3RR2bzQDsFDDGsOlaO07IbU5b0vzC0aLiHvBfJPeNLBNLTaVsQkSCw","signer":"12D3KooWRjMeASCyQQNm9XCjWkk7yHXwkQVBpZiQBtCVndiv248Z"}]}');
CREATE TABLE conduct (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, peer TEXT NOT NULL, conduct TEXT NOT NULL,
    PRIMARY KEY (task, attempt, peer)
) STRICT, WITHOUT ROWID;
INSERT INTO "conduct" VALUES('e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134',0,'12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E','equivocated');
INSERT INTO "conduct" VALUES('e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134',1,'12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E','silent');
CREATE TABLE cursors (
    peer TEXT PRIMARY KEY, feed TEXT NOT NULL, cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "cursors" VALUES('peer','feed',7);
CREATE TABLE envelopes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL, signer TEXT NOT NULL, type TEXT NOT NULL,
    envelope TEXT NOT NULL, at REAL NOT NULL
) STRICT;
INSERT INTO "envelopes" VALUES(1,'e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134','12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui','task','{"body":{"args":{"model":"helium/embedded-music","prompt":"80s pop track","seed":42},"class":"cpu","created":1750000000000,"deadline":600,"kind":"text-to-music","network":"b8edc510ccd4d631","nonce":"00000000000000000000000000000000","type":"task"},"signature":"H9i_XemquQpzPOIX6QuwawUJhl-Jk0BfG7fg2T6jfVBx-qfGgFy0LcAOVsVFnEQqI45yZw7y8y-oZ90zpH4lCA","signer":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui"}',1.5);
INSERT INTO "envelopes" VALUES(2,'e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134','12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E','commit','{"body":{"attempt":0,"commitment":"165f3183b287c6d0b5db85471e192eb6c51dc8bc24b902b85255732c20a16523","network":"b8edc510ccd4d631","task":"e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134","type":"commit"},"signature":"tacJMKUZYfMkd26G4dC9ajb7hcs5rQhmgJc4Yz0JyNr1TD10piEqZS1eo_gkKli24TkN24s5P6uvFvSjsnUIBA","signer":"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E"}',2.5);
CREATE TABLE evidence (
    id TEXT PRIMARY KEY, signer TEXT NOT NULL, task TEXT NOT NULL, document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "evidence" VALUES('149e219e3b5ee7a9ad0e60ebfb0094c92aaa45e84b8c2e265621dca455ae0618','12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E','e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134','{"envelopes":[{"body":{"attempt":0,"commitment":"2d01d1b83240e5b5da1d5c5314926701cce2ae3ebea1ee2e941afd00663d52dc","network":"b8edc510ccd4d631","task":"e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134","type":"commit"},"signature":"k9NioYpWksgxLW-GsuErV0oCXCIvCHvc3f-ffSc6zrrRfGwhZrEgkL9xZUHhSCVIroBISv_4PlRNOJHk-FdtAQ","signer":"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E"},{"body":{"attempt":0,"commitment":"10c71ed3492911a7a8c67735d67ca667c4c256de4df7cbb7dacf190abdb42589","network":"b8edc510ccd4d631","task":"e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134","type":"commit"},"signature":"hnrmw68Je8NtJQOhiVxj-tHfwE9v8LGGW3zr1djvnzb992ALtgid21hRmjxftV-b2OMzRgX7KPFugfoLA46TAQ","signer":"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E"}],"kind":"equivocation","type":"evidence"}');
CREATE TABLE outcomes (
    task TEXT PRIMARY KEY, outcome TEXT NOT NULL, trace TEXT NOT NULL,
    after INTEGER NOT NULL, at REAL NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "outcomes" VALUES('e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134','{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}}','{"seconds":1}',1,2.5);
CREATE TABLE outputs (
    sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, chunks TEXT NOT NULL, signers TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "outputs" VALUES('bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef',64,'bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef','12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E 12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP 12D3KooWRjMeASCyQQNm9XCjWkk7yHXwkQVBpZiQBtCVndiv248Z');
CREATE TABLE progress (steps INTEGER NOT NULL) STRICT;
INSERT INTO "progress" VALUES(3);
CREATE TABLE salts (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, salt TEXT NOT NULL, PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO "salts" VALUES('e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134',0,'5555555555555555555555555555555555555555555555555555555555555555');
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, attempt INTEGER NOT NULL, ended INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tasks" VALUES('e729e67fb254b665eb2d4e5529e27a55259a409c956b22ab16b1ff73d44f5134','committed',0,0);
CREATE INDEX envelopes_by_task ON envelopes (task, seq);
CREATE INDEX tasks_open ON tasks (ended, id);
CREATE INDEX conduct_by_peer ON conduct (peer, conduct);
CREATE INDEX evidence_by_task ON evidence (task);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('envelopes',2);
INSERT INTO "sqlite_sequence" VALUES('certificates',1);
COMMIT;
PRAGMA user_version = 4;

BEGIN TRANSACTION;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "about" VALUES('feed','1b56473f21f38558b4ca62eb539ece80');
INSERT INTO "about" VALUES('network','ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01');
CREATE TABLE certificates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, outcome TEXT NOT NULL,
    document TEXT NOT NULL, UNIQUE (task, outcome)
) STRICT;
INSERT INTO "certificates" VALUES(1,'d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','07cda1d7b35f0c29b13294d849822c8993f289e06653429bed780a43ff92f898','{"attempt":0,"network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","task":{"body":{"args":{"model":"helium/embedded-music","prompt":"80s pop track","seed":42},"class":"cpu","created":1750000000000,"deadline":600,"kind":"text-to-music","network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","nonce":"00000000000000000000000000000000","requester":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui","type":"task"},"signature":"pJtIHGrfqUrUn6cIAUbkPIEmjL1EqFufj2A782FnwhWLX-9V6cIS61A9rNbN0V5KoQyQcvpBaoKoVeeq4WlxDA","signer":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui"},"type":"certificate","version":2,"votes":[{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"6453463cb672affe74bac3c4bd04d31c038acbbf5f1891614685d30696fafb8a","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"d7bdab4e2fb6e4959cccacecb4c64e41ac1aa6895fa3232aaca8fe35ae399913","12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2":"3cef7cc67de96fabb8f0a3042b777a47a3a9b0cf14c5ccb4a36157d38de9c469"},"network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"0386a382596919159075e19cfcc581f0ea503a5a5c09f0bcaa8fe697cba4d83c","task":"d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be","trace":{"seconds":1},"type":"reveal"},"signature":"JR22N9VAV-g3R8MYWCeydNQQG_6m7FH3Sh3zCxGl7YEcvRzNzi8fBAQbNdKoFVBSEmu4S9z5Oq8ZkEhk4kzqDA","signer":"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E"},{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"6453463cb672affe74bac3c4bd04d31c038acbbf5f1891614685d30696fafb8a","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"d7bdab4e2fb6e4959cccacecb4c64e41ac1aa6895fa3232aaca8fe35ae399913","12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2":"3cef7cc67de96fabb8f0a3042b777a47a3a9b0cf14c5ccb4a36157d38de9c469"},"network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"44f6ecea51a276e87db41cf2c3274d7fc2033b4aeb01fbec6bdf31b02679192d","task":"d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be","trace":{"seconds":1},"type":"reveal"},"signature":"kzfowL6zKsc5d3Q69Czah7CrPbq9k21zxMiM-NhLE-NxZenJa7DVuyA1cNakkRbfC5W_Oa6mr11VIshfMYJCDw","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"},{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"6453463cb672affe74bac3c4bd04d31c038acbbf5f1891614685d30696fafb8a","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"d7bdab4e2fb6e4959cccacecb4c64e41ac1aa6895fa3232aaca8fe35ae399913","12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2":"3cef7cc67de96fabb8f0a3042b777a47a3a9b0cf14c5ccb4a36157d38de9c469"},"network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"3cdba0bb283f3a4d97b52f93d4797e9d52bf5d215ddbf636e5ddc330568dca8b","task":"d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be","trace":{"seconds":1},"type":"reveal"},"signature":"Sv-Q5N5AKOWi9OE728Nlz-UgJcOJfhUI6u1TSoQ3rx480DTzkADoUMweh3UUjIY_lcN-kOlQYGFYXD_7WN_xBA","signer":"12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2"}]}');
CREATE TABLE conduct (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, peer TEXT NOT NULL, conduct TEXT NOT NULL,
    suspect_from REAL, accepted INTEGER NOT NULL,
    PRIMARY KEY (task, attempt, peer)
) STRICT, WITHOUT ROWID;
INSERT INTO "conduct" VALUES('d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be',0,'12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','equivocated',0.0,1);
INSERT INTO "conduct" VALUES('d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be',1,'12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','silent',NULL,1);
CREATE TABLE cursors (
    peer TEXT PRIMARY KEY, feed TEXT NOT NULL, cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "cursors" VALUES('peer','feed',7);
CREATE TABLE envelopes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL,
    task TEXT NOT NULL, signer TEXT NOT NULL, type TEXT NOT NULL,
    envelope TEXT NOT NULL, at REAL NOT NULL
) STRICT;
INSERT INTO "envelopes" VALUES(1,X'5BCD3E03131966937E4A36A627C7A9890081162F1C7F49D7072D4EE428FE6859','d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui','task','{"body":{"args":{"model":"helium/embedded-music","prompt":"80s pop track","seed":42},"class":"cpu","created":1750000000000,"deadline":600,"kind":"text-to-music","network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","nonce":"00000000000000000000000000000000","requester":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui","type":"task"},"signature":"pJtIHGrfqUrUn6cIAUbkPIEmjL1EqFufj2A782FnwhWLX-9V6cIS61A9rNbN0V5KoQyQcvpBaoKoVeeq4WlxDA","signer":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui"}',1.5);
INSERT INTO "envelopes" VALUES(2,X'F7BFA76C76DF3B0491FEA6109DC88927E01DD7FDDAA6BDF6F2B3B6ED3287B061','d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','commit','{"body":{"attempt":0,"commitment":"d7bdab4e2fb6e4959cccacecb4c64e41ac1aa6895fa3232aaca8fe35ae399913","network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","task":"d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be","type":"commit"},"signature":"s3MKZzjhFU0DZIp8ARxPQxWPwG-m9pqoRv1-lqUS81QuyYcd4Rnh4jUuA2SRUoTTij9cGpP2a3H8wx_x0q4bBQ","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"}',2.5);
CREATE TABLE evidence (
    id TEXT PRIMARY KEY, signer TEXT NOT NULL, task TEXT NOT NULL, document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "evidence" VALUES('5299a2f96230160b585ac68540a97892a1a47e0415df40eb0dd60e3e3e379bc2','12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','{"envelopes":[{"body":{"attempt":0,"commitment":"d7bdab4e2fb6e4959cccacecb4c64e41ac1aa6895fa3232aaca8fe35ae399913","network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","task":"d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be","type":"commit"},"signature":"s3MKZzjhFU0DZIp8ARxPQxWPwG-m9pqoRv1-lqUS81QuyYcd4Rnh4jUuA2SRUoTTij9cGpP2a3H8wx_x0q4bBQ","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"},{"body":{"attempt":0,"commitment":"0000000000000000000000000000000000000000000000000000000000000000","network":"ce3b58c9728b39b0fcce05c0caf877483c544e0bba6f64dbd5ed7430c8071e01","task":"d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be","type":"commit"},"signature":"GTwkLWAtUqeE0vQYVa0mPd6rNOg9gwcHrfdrqsOEXkwpKoJn6PvN33kK3TA6_XhGLzNQGrbMZENPgY-D0caOCA","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"}],"kind":"equivocation","type":"evidence"}');
CREATE TABLE outcomes (
    task TEXT PRIMARY KEY, outcome TEXT NOT NULL, trace TEXT NOT NULL,
    after INTEGER NOT NULL, at REAL NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "outcomes" VALUES('d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}}','{"seconds":1}',1,2.5);
CREATE TABLE outputs (
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, chunks TEXT NOT NULL, signers TEXT NOT NULL,
    PRIMARY KEY (sha256, size, chunks)
) STRICT, WITHOUT ROWID;
INSERT INTO "outputs" VALUES('bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef',64,'bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef','12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E 12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP 12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2');
CREATE TABLE progress (steps INTEGER NOT NULL) STRICT;
INSERT INTO "progress" VALUES(3);
CREATE TABLE salts (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, salt TEXT NOT NULL, PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO "salts" VALUES('d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be',0,'5555555555555555555555555555555555555555555555555555555555555555');
CREATE TABLE suspects (
    task TEXT NOT NULL, peer TEXT NOT NULL, PRIMARY KEY (task, peer)
) STRICT, WITHOUT ROWID;
INSERT INTO "suspects" VALUES('d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP');
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, attempt INTEGER NOT NULL, ended INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tasks" VALUES('d10b1caecf5f3b651107aceec8714fd3604f4fde873eebe471df8af808fce6be','committed',0,0);
CREATE UNIQUE INDEX envelopes_by_id ON envelopes (id);
CREATE INDEX envelopes_by_task ON envelopes (task, seq);
CREATE INDEX tasks_open ON tasks (ended, id);
CREATE INDEX conduct_by_peer ON conduct (peer, conduct);
CREATE INDEX conduct_by_age ON conduct (peer, accepted);
CREATE INDEX conduct_faults ON conduct (peer, accepted) WHERE suspect_from IS NOT NULL;
CREATE INDEX evidence_by_task ON evidence (task);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('envelopes',2);
INSERT INTO "sqlite_sequence" VALUES('certificates',1);
COMMIT;
PRAGMA user_version = 6;

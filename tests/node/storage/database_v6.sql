BEGIN TRANSACTION;
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO "about" VALUES('feed','1b56473f21f38558b4ca62eb539ece80');
INSERT INTO "about" VALUES('network','c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1');
CREATE TABLE certificates (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, outcome TEXT NOT NULL,
    document TEXT NOT NULL, UNIQUE (task, outcome)
) STRICT;
INSERT INTO "certificates" VALUES(1,'7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','07cda1d7b35f0c29b13294d849822c8993f289e06653429bed780a43ff92f898','{"attempt":0,"network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","task":{"body":{"args":{"model":"helium/embedded-music","prompt":"80s pop track","seed":42},"class":"cpu","created":1750000000000,"deadline":600,"kind":"text-to-music","network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","nonce":"00000000000000000000000000000000","requester":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui","type":"task"},"signature":"0FgTO311DWhqLZaJJslR-l1ZwmXwIwJ7HGU9QOABiI02ZY1i8DTuD_bmFzbU59dgzyR9_iSvJY8d0_j6_b3gDw","signer":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui"},"type":"certificate","version":2,"votes":[{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"3abd47be7576dd6fe675391b240c8e514136b5186bc5fa6cb5bf434a82d6ec84","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"dba8ebd329966defb137a4a2e904701c236acf5453d9b6c168238dc1a7e1b5c6","12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2":"6fce8880db552186930cd817dab125c98815b5a8f6733a43995682c344954cf2"},"network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"0386a382596919159075e19cfcc581f0ea503a5a5c09f0bcaa8fe697cba4d83c","task":"7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31","trace":{"seconds":1},"type":"reveal"},"signature":"X6SMxauMMQDCyBixJUM5VxXeAMgWHGMlvi7pxVpsaIoOWl6FPuSyNz7uw6g_aJjJ1vqjfJjIu4_BCRz6E4LhBQ","signer":"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E"},{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"3abd47be7576dd6fe675391b240c8e514136b5186bc5fa6cb5bf434a82d6ec84","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"dba8ebd329966defb137a4a2e904701c236acf5453d9b6c168238dc1a7e1b5c6","12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2":"6fce8880db552186930cd817dab125c98815b5a8f6733a43995682c344954cf2"},"network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"44f6ecea51a276e87db41cf2c3274d7fc2033b4aeb01fbec6bdf31b02679192d","task":"7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31","trace":{"seconds":1},"type":"reveal"},"signature":"Un4ME0I_3EofLJC6wu9N5LbY0AZ5Y-lOjZfd_QvyJGxJnGYMQSVBOzaCoRxtU7I-gos6BNRVGB1e2U3uYXpGBA","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"},{"body":{"attempt":0,"commits":{"12D3KooWDkbDryzbPJaFQJo9Dno5YCdtHjg3SCvMURBVmd5FtY4E":"3abd47be7576dd6fe675391b240c8e514136b5186bc5fa6cb5bf434a82d6ec84","12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP":"dba8ebd329966defb137a4a2e904701c236acf5453d9b6c168238dc1a7e1b5c6","12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2":"6fce8880db552186930cd817dab125c98815b5a8f6733a43995682c344954cf2"},"network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","outcome":{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}},"salt":"3cdba0bb283f3a4d97b52f93d4797e9d52bf5d215ddbf636e5ddc330568dca8b","task":"7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31","trace":{"seconds":1},"type":"reveal"},"signature":"bttYICHlPWGjYNsr5VPrP47ljFUcPaunnia4Az3zfsXHKNeXPm116HQlLeiqT1YFTC05lKH5J6r3oO60xo9ZDg","signer":"12D3KooWNaitGQ5QHE9P9ruJqLUAawAGg5fUU5e4yRCmvpQ2qMx2"}]}');
CREATE TABLE conduct (
    task TEXT NOT NULL, attempt INTEGER NOT NULL, peer TEXT NOT NULL, conduct TEXT NOT NULL,
    suspect_from REAL, accepted INTEGER NOT NULL,
    PRIMARY KEY (task, attempt, peer)
) STRICT, WITHOUT ROWID;
INSERT INTO "conduct" VALUES('7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31',0,'12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','equivocated',0.0,1);
INSERT INTO "conduct" VALUES('7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31',1,'12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','silent',NULL,1);
CREATE TABLE cursors (
    peer TEXT PRIMARY KEY, feed TEXT NOT NULL, cursor INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "cursors" VALUES('peer','feed',7);
CREATE TABLE envelopes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL,
    task TEXT NOT NULL, signer TEXT NOT NULL, type TEXT NOT NULL,
    envelope TEXT NOT NULL, at REAL NOT NULL
) STRICT;
INSERT INTO "envelopes" VALUES(1,X'410813918BB4AFC1E1BF0E96EFE638A5037DE81370AE3B7205EBD8655073BF29','7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui','task','{"body":{"args":{"model":"helium/embedded-music","prompt":"80s pop track","seed":42},"class":"cpu","created":1750000000000,"deadline":600,"kind":"text-to-music","network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","nonce":"00000000000000000000000000000000","requester":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui","type":"task"},"signature":"0FgTO311DWhqLZaJJslR-l1ZwmXwIwJ7HGU9QOABiI02ZY1i8DTuD_bmFzbU59dgzyR9_iSvJY8d0_j6_b3gDw","signer":"12D3KooWNSHavNyx7ThK6uvJEXfmBZnbHu8iz9jxKYpe6A46gyui"}',1.5);
INSERT INTO "envelopes" VALUES(2,X'3416063480ACF310B8A1B353119B9023682D7CE734A32A3B6AFCA5090096F1D8','7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','commit','{"body":{"attempt":0,"commitment":"dba8ebd329966defb137a4a2e904701c236acf5453d9b6c168238dc1a7e1b5c6","network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","task":"7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31","type":"commit"},"signature":"xgRF5VcT2oH_xFTww-cJicJidsBCM0Y1J19INelWlQYdoBfIQfc7424io628lLT_hiVAAQxTnoGJsTUYHE9ECg","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"}',2.5);
CREATE TABLE evidence (
    id TEXT PRIMARY KEY, signer TEXT NOT NULL, task TEXT NOT NULL, document TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "evidence" VALUES('6978b26d67c8b272f33615161e3f6f3dea4f2ca7609c89d97baf05e1e39f6696','12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP','7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','{"envelopes":[{"body":{"attempt":0,"commitment":"dba8ebd329966defb137a4a2e904701c236acf5453d9b6c168238dc1a7e1b5c6","network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","task":"7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31","type":"commit"},"signature":"xgRF5VcT2oH_xFTww-cJicJidsBCM0Y1J19INelWlQYdoBfIQfc7424io628lLT_hiVAAQxTnoGJsTUYHE9ECg","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"},{"body":{"attempt":0,"commitment":"0000000000000000000000000000000000000000000000000000000000000000","network":"c2b9355cb6282e5add14ef9a728c1a27c852baa17f07438afb4508895c9b9fe1","task":"7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31","type":"commit"},"signature":"-e-Nvmbxsh1RpJe4Ix2uouZzvb7E1VnXLHoM28gGuW44bq76-9WwYbvjK004uDnUwTux-r7DRZ3nOoPDEqlvAw","signer":"12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP"}],"kind":"equivocation","type":"evidence"}');
CREATE TABLE outcomes (
    task TEXT PRIMARY KEY, outcome TEXT NOT NULL, trace TEXT NOT NULL,
    after INTEGER NOT NULL, at REAL NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "outcomes" VALUES('7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','{"result":{"outputs":[{"channels":1,"chunks":["bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef"],"frames":16,"media":"audio/f32","sampling_rate":32000,"sha256":"bf5b6382c2ea46ede3117c0250a9abf431ddf38fca4d50462e5834d09b1b33ef","size":64}]}}','{"seconds":1}',1,2.5);
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
INSERT INTO "salts" VALUES('7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31',0,'5555555555555555555555555555555555555555555555555555555555555555');
CREATE TABLE suspects (
    task TEXT NOT NULL, peer TEXT NOT NULL, PRIMARY KEY (task, peer)
) STRICT, WITHOUT ROWID;
INSERT INTO "suspects" VALUES('7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','12D3KooWJrBsxxUDo6gZUsi48V6235BXeTv1hRpmBZAtTc28dtkP');
CREATE TABLE tasks (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, attempt INTEGER NOT NULL, ended INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tasks" VALUES('7d157324a0743155eba19a44a41aaa1889b4f7e29eb8305586cc60ea2f300a31','committed',0,0);
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

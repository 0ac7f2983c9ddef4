//! `countersign rotate replace`: a key that is lost, broken or leaked.

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::examples::shell;
use super::free_port::free_port;
use super::modules::Running;
use super::support::{Folder, Run, private_part};

const DPM: &str = "dpm/etc/application.properties";
const DPE: &str = "dpe/etc/application.properties";
const REPLACE: &str = "rotate replace --home dpe --peer-file dpm";

/// Pairs a DPM and an engine, which listen on ports of their own.
fn paired() -> Folder {
    let folder = Folder::new();
    let (registry, engine) = (free_port(), free_port());
    folder.write(
        DPM,
        format!("# ours\nataccama.server.grpc.port={registry}\nserver.port=0\n"),
    );
    let ports = format!("ataccama.server.grpc.port={engine}\nserver.port=0\n");
    let to_dpm = format!("ataccama.client.connection.dpm.grpc.port={registry}\n");
    folder.write(DPE, ports + &to_dpm);
    folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    folder
}

/// Writes `key` as the engine's own, or takes the line out.
fn set_own_key(folder: &Folder, key: Option<&str>) {
    let text = folder.read(DPE);
    let lines = text.lines().filter_map(|line| {
        let own = line.split_once("generator.key=");
        match (own, key) {
            (None, _) => Some(line.to_owned()),
            (Some((name, _)), Some(key)) => Some(format!("{name}generator.key={key}")),
            (Some(_), None) => None,
        }
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    folder.write(DPE, text);
}

fn own_key(folder: &Folder) -> String {
    let text = folder.read(DPE);
    let key = text
        .lines()
        .find_map(|line| line.split_once("generator.key="));
    key.unwrap().1.to_owned()
}

/// Returns the engine's key without its private part.
fn without_d(folder: &Folder) -> String {
    let jwk = BASE64_STANDARD.decode(own_key(folder)).unwrap();
    let mut jwk: serde_json::Value = serde_json::from_slice(&jwk).unwrap();
    jwk.as_object_mut().unwrap().remove("d");
    BASE64_STANDARD.encode(jwk.to_string())
}

/// Returns the engine's key with the private part of another one.
fn with_another_d(folder: &Folder) -> String {
    let other = private_part(&folder.run("key gen").exits(0).stdout);
    let jwk = BASE64_STANDARD.decode(own_key(folder)).unwrap();
    let mut jwk: serde_json::Value = serde_json::from_slice(&jwk).unwrap();
    jwk["d"] = other.into();
    BASE64_STANDARD.encode(jwk.to_string())
}

/// Returns the words that a run said.
#[track_caller]
fn words(run: &Run) -> String {
    let mut lines = run.stderr.lines();
    let found = lines.find_map(|line| line.strip_prefix("words   "));
    found
        .unwrap_or_else(|| panic!("{run:#?}"))
        .replace(' ', "-")
}

/// Returns the command that a run says is next at `place`.
#[track_caller]
fn next(run: &Run, place: &str) -> String {
    let mut lines = run.stdout.lines().chain(run.stderr.lines());
    let found = lines.find_map(|line| line.split_once(&format!("{place}: countersign ")));
    let (_, command) = found.unwrap_or_else(|| panic!("{place}: {run:#?}"));
    format!("countersign {command}")
}

/// Checks that the engine's private key is not in what a run printed.
#[track_caller]
fn shows_nothing_private(folder: &Folder, run: &Run) {
    let jwk = String::from_utf8(BASE64_STANDARD.decode(own_key(folder)).unwrap()).unwrap();
    let d = private_part(&jwk);
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains(&d) && !text.contains("\"d\""), "{text}");
    }
}

/// Has both run, lets `damage` spoil the engine's key, and replaces it.
fn is_replaced_while_both_run(damage: impl Fn(&Folder) -> Option<String>) {
    let folder = paired();
    let mut dpm = Running::start(&folder, "dpm run --home dpm");
    let mut dpe = Running::start(&folder, "dpe run --home dpe");
    dpm.until("newStatus=READY");
    folder.write("old/etc/application.properties", folder.read(DPE));
    let token = folder
        .run("token issue --home dpe --audience dpm-dev")
        .exits(0);
    let lost = damage(&folder);
    set_own_key(&folder, lost.as_deref());
    let before = [DPM, DPE].map(|file| folder.read(file));

    let dry = folder.run(&format!("{REPLACE} --dry-run")).exits(0);
    let unasked = folder.run(REPLACE).exits(2);
    assert_eq!([DPM, DPE].map(|file| folder.read(file)), before);
    let run = folder.run(&format!("{REPLACE} --yes")).exits(0);

    for run in [&dry, &unasked, &run] {
        let stops = "dpm/etc/application.properties  stops working:\n  KEY_REVOKED for calls and \
                     replies that `key` of dpe-dev signed: ";
        assert!(run.stderr.starts_with(stops), "{run:#?}");
        let on = "\n  dpe-dev goes on with key2\n";
        assert!(run.stderr.contains(on), "{run:#?}");
        shows_nothing_private(&folder, run);
    }
    assert!(dry.stdout.ends_with("nothing was written (--dry-run)\n"));
    // Both follow their files.
    dpm.until("keyRevoked");
    dpe.until("configReloaded");
    // If the engine was first, it is READY all the time and nothing is logged.
    let doctor = next(&run, "here");
    let mut asked = std::iter::repeat_with(|| shell(&folder, &doctor)).take(200);
    let ready = asked.find(|run| run.code == 0 && run.stdout.contains("READY"));
    assert!(ready.is_some(), "{:#?}", shell(&folder, &doctor));
    let refused = folder.run("engines list --home old").exits(4);
    assert!(refused.stderr.contains("KEY_REVOKED"), "{refused:#?}");
    let explained = folder.run_with("token explain --home dpm -o json", token.stdout.as_bytes());
    assert_eq!(explained.exits(1).json()["reason"], "KEY_REVOKED");
    // Nothing else changed.
    let [registry, engine] = [DPM, DPE].map(|file| folder.read(file));
    let revoked = before[0].replace("is-revoked=false", "is-revoked=true");
    let added = registry.strip_prefix(&revoked).unwrap();
    assert!(added.lines().all(|line| line.contains(".jwt-keys.key2.")));
    assert_eq!(added.lines().count(), 3, "{added}");
    let own = own_key(&folder);
    let rest = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains("generator.key="));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rest(&engine), rest(&before[1]));
    assert!(!before[1].contains(&own));
    let memory = folder.read("dpm/storage/revoked-keys");
    assert_eq!(memory.lines().count(), 1, "{memory}");
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn lost_key_is_replaced_while_both_run_and_they_are_ready_again() {
    is_replaced_while_both_run(|_| None);
}

#[test]
fn broken_key_is_replaced_while_both_run_and_they_are_ready_again() {
    is_replaced_while_both_run(|folder| Some(without_d(folder)));
}

#[test]
fn key_that_is_broken_in_any_way_or_leaked_is_replaced_and_each_run_makes_another() {
    let folder = paired();
    let pem = "-----BEGIN PRIVATE KEY-----".to_owned();
    let another = with_another_d(&folder);
    let leaked = own_key(&folder);
    let mut keys = 1;
    for key in [
        String::new(),
        "<generated_key>".to_owned(),
        pem,
        another,
        leaked,
    ] {
        set_own_key(&folder, Some(&key));

        let run = folder.run(&format!("{REPLACE} --yes -o json")).exits(0);

        let report = run.json();
        assert_eq!(
            (&report["step"], &report["written"]),
            (&"replace".into(), &true.into())
        );
        keys += 1;
        let text = folder.read(DPM);
        assert_eq!(text.matches("is-revoked=false").count(), 1, "{key}: {text}");
        assert_eq!(text.matches("is-revoked=").count(), keys, "{key}: {text}");
        assert!(!own_key(&folder).contains(&key) || key.is_empty());
        folder.run(&format!("check {DPM} {DPE}")).exits(0);
    }
}

#[test]
fn module_is_found_by_its_name_and_a_doubt_is_refused() {
    let folder = paired();
    let name = "countersign.deployment.name=dpe-dev\n";
    let nameless = folder.read(DPE).replace(name, "");
    let other = nameless.clone() + "countersign.deployment.name=dpe-two\n";
    let before = folder.read(DPM);

    folder.write(DPE, &other);
    let contradicts = folder.run(&format!("{REPLACE} --yes")).exits(1);
    set_own_key(&folder, None);
    let unknown = folder.run(&format!("{REPLACE} --yes")).exits(1);
    folder.write(DPE, &nameless);
    set_own_key(&folder, None);
    let nothing = folder.run(&format!("{REPLACE} --yes")).exits(1);
    let wrong = folder
        .run(&format!("{REPLACE} --name dpe-two --yes"))
        .exits(1);
    let alone = folder
        .run("rotate replace --home dpe --one-side --yes")
        .exits(3);

    for (run, why) in [
        (
            &contradicts,
            "has this module's key as `dpe-dev`, but the module calls itself `dpe-two`",
        ),
        (&unknown, "does not trust a deployment `dpe-two`"),
        (
            &nothing,
            "nothing in `dpm/etc/application.properties` shows what it calls this module",
        ),
        (&wrong, "does not trust a deployment `dpe-two`"),
    ] {
        assert!(run.stderr.contains(why), "{run:#?}");
        assert!(
            run.stderr
                .contains("say it with `--name`; it trusts: `dpe-dev`"),
            "{run:#?}"
        );
    }
    assert!(alone.stderr.contains("`--name`"), "{alone:#?}");
    assert_eq!(folder.read(DPM), before);
    folder
        .run(&format!("{REPLACE} --name DPE-Dev --yes"))
        .exits(0);
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn both_keys_that_are_lost_are_replaced_one_after_the_other() {
    let folder = paired();
    set_own_key(&folder, None);
    let text = folder.read(DPM);
    let lines = text.lines().filter(|line| !line.contains("generator.key="));
    folder.write(DPM, lines.collect::<Vec<_>>().join("\n") + "\n");

    folder.run(&format!("{REPLACE} --yes")).exits(0);
    let registry = "rotate replace --file dpm --peer-file dpe";
    folder.run(&format!("{registry} --yes")).exits(0);

    folder.run(&format!("check {DPM} {DPE}")).exits(0);
}

#[test]
fn key_of_a_module_without_a_name_shows_what_its_peers_call_it() {
    let folder = paired();
    let name = "countersign.deployment.name=dpe-dev\n";
    folder.write(DPE, folder.read(DPE).replace(name, ""));

    folder.run(&format!("{REPLACE} --yes")).exits(0);

    assert!(folder.read(DPM).contains(".jwt-keys.key2."));
}

#[test]
fn peer_that_is_left_out_is_named_and_gets_the_block() {
    let folder = paired();
    let third = "x/etc/application.properties";
    folder
        .run(&format!(
            "pair dpm={DPM} other={third} --name other=other-dev --yes"
        ))
        .exits(0);
    let before = [DPM, DPE, third].map(|file| folder.read(file));

    let replace = "rotate replace --home dpm --peer-file dpe";
    let refused = folder.run(&format!("{replace} --yes")).exits(1);
    assert_eq!([DPM, DPE, third].map(|file| folder.read(file)), before);
    let run = folder.run(&format!("{replace} --one-side --yes")).exits(0);

    let why = "`other-dev` trusts this module too, and its file is not named";
    assert!(refused.stderr.contains(why), "{refused:#?}");
    assert!(refused.stderr.contains("`--one-side`"), "{refused:#?}");
    folder.write("x/dpm-dev.block", &run.stdout);
    let accept = next(&run, "on the host of other-dev, in its home folder");
    let accept = format!("cd x && {accept} --words {} --yes", words(&run));
    shell(&folder, &accept).exits(0);
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
    folder.run(&format!("check {DPM} {third}")).exits(0);
}

#[test]
fn faults_that_the_new_key_does_not_end_are_shown_and_nothing_is_written() {
    for file in [DPM, DPE] {
        let folder = paired();
        set_own_key(&folder, None);
        folder.write(file, folder.read(file) + "countersign.server.adress=x\n");
        let before = [DPM, DPE].map(|file| folder.read(file));

        let run = folder.run(&format!("{REPLACE} --yes")).exits(3);

        let why = format!("`{file}` has faults that must be fixed first");
        assert!(run.stderr.contains(&why), "{run:#?}");
        assert!(run.stderr.contains("error[CS0106]"), "{run:#?}");
        assert_eq!([DPM, DPE].map(|file| folder.read(file)), before);
    }
}

#[test]
fn peer_that_does_not_reload_is_named_after_what_was_written() {
    let folder = paired();
    folder.write(DPM, folder.read(DPM) + "countersign.reload=false\n");

    let run = folder.run(&format!("{REPLACE} --yes")).exits(1);

    let why = format!("written, but NOT active: `{DPM}` says `countersign.reload=false`");
    assert!(run.stderr.contains(&why), "{run:#?}");
    assert!(folder.read(DPM).contains("is-revoked=true"));
}

/// Replaces the engine's key on its machine alone; returns its block and the words.
fn one_side(folder: &Folder) -> (String, String) {
    set_own_key(folder, None);
    let run = "rotate replace --home dpe --one-side";
    let dry = folder.run(&format!("{run} --dry-run")).exits(0);
    assert!(!dry.stdout.contains("HAND-OVER"), "{dry:#?}");
    let run = folder.run(&format!("{run} --yes")).exits(0);
    shows_nothing_private(folder, &run);
    (run.stdout.clone(), words(&run))
}

const ACCEPT: &str = "pair accept dpm=dpm/etc/application.properties";

#[test]
fn block_of_a_replaced_key_revokes_those_before_it_after_its_words_and_a_yes() {
    let folder = paired();
    let (block, words) = one_side(&folder);
    let before = folder.read(DPM);
    let accept = |more: &str| folder.run_with(&format!("{ACCEPT} {more}"), block.as_bytes());

    // A stranger can make such a block: words and a yes are needed.
    let unheard = accept("--yes").exits(2);
    accept("").exits(2);
    let other = accept("--words acorn-acorn-acorn-acorn-acorn-acorn-acorn-acorn --yes").exits(1);
    let unasked = accept(&format!("--words {words}")).exits(2);
    let dry = accept("--dry-run").exits(0);
    assert_eq!(folder.read(DPM), before);
    let done = accept(&format!("--words {words} --yes")).exits(0);

    assert!(
        unheard.stderr.contains("a stranger can make this block"),
        "{unheard:#?}"
    );
    assert!(other.stderr.contains("are different"), "{other:#?}");
    for run in [&unasked, &dry, &done] {
        let stops =
            "stops working:\n  KEY_REVOKED for calls and replies that `key` of dpe-dev signed";
        assert!(run.stderr.contains(stops), "{run:#?}");
        assert!(
            run.stderr.contains("  dpe-dev goes on with key2\n"),
            "{run:#?}"
        );
    }
    folder.run(&format!("check {DPM} {DPE}")).exits(0);
    assert_eq!(folder.read(DPM).matches("is-revoked=true").count(), 1);
    assert!(
        folder
            .read("dpm/storage/revoked-keys")
            .starts_with("revoked ")
    );
    let text = folder.read(DPM);
    let again = accept(&format!("--words {words} --yes")).exits(0);
    assert!(again.stderr.contains("nothing to do"), "{again:#?}");
    assert_eq!(folder.read(DPM), text);
}

#[test]
fn old_block_of_a_replaced_key_changes_nothing() {
    let folder = paired();
    let (first, heard) = one_side(&folder);
    let accept = format!("{ACCEPT} --words {heard} --yes");
    folder.run_with(&accept, first.as_bytes()).exits(0);
    let rotate = "rotate prepare --file dpe --peer-file dpm --offline --yes";
    folder.run(rotate).exits(0);
    let before = folder.read(DPM);

    // It would revoke the key that came later.
    let later = folder.run_with(&accept, first.as_bytes()).exits(1);
    assert!(
        later.stderr.contains("has accepted this block already"),
        "{later:#?}"
    );
    assert_eq!(folder.read(DPM), before);

    // It would trust a key again that is revoked.
    let (second, words) = one_side(&folder);
    let newest = format!("{ACCEPT} --words {words} --yes");
    folder.run_with(&newest, second.as_bytes()).exits(0);
    let before = folder.read(DPM);
    let revoked = folder.run_with(&accept, first.as_bytes()).exits(1);
    assert!(revoked.stderr.contains("remembers the key"), "{revoked:#?}");
    assert_eq!(folder.read(DPM), before);
}

#[test]
fn block_for_a_module_that_is_not_trusted_or_with_the_key_of_another_is_refused() {
    let folder = paired();
    let (_, _) = one_side(&folder);
    let third = "x/etc/application.properties";
    folder
        .run(&format!(
            "pair dpm={DPM} other={third} --name other=other-dev --yes"
        ))
        .exits(0);
    let before = folder.read(DPM);
    let replace = "rotate replace --home x --one-side --yes --name";

    let unknown = folder.run(&format!("{replace} unknown")).exits(0);
    let accept = format!("{ACCEPT} --words {} --yes", words(&unknown));
    let unknown = folder.run_with(&accept, unknown.stdout.as_bytes()).exits(1);
    // The key of `other-dev`, under the name of the engine.
    let given = folder.run(&format!("{replace} other-dev")).exits(0);
    let accept = format!("{ACCEPT} --words {} --yes", words(&given));
    folder.run_with(&accept, given.stdout.as_bytes()).exits(0);
    let stolen = forged(&given.stdout, "dpe-dev");
    let shown = folder.run_with(&format!("{ACCEPT} --dry-run"), stolen.as_bytes());

    assert!(
        unknown.stderr.contains("no deployment is called `unknown`"),
        "{unknown:#?}"
    );
    assert_ne!(folder.read(DPM), before);
    let shown = shown.exits(1);
    assert!(shown.stderr.contains("error[CS0208]"), "{shown:#?}");
}

/// Returns `block` with another deployment, and with the checksum that this makes.
fn forged(block: &str, deployment: &str) -> String {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use sha2::{Digest as _, Sha256};

    let (head, rest) = block.split_once('\n').unwrap();
    let (lines, _) = rest.split_once("checksum: ").unwrap();
    let lines = lines.replace("other-dev", deployment);
    let sum = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&lines));
    let end = head.replace("BEGIN", "END");
    format!("{head}\n{lines}checksum: {sum}\n{end}\n")
}

//! `countersign explain`.

use countersign::Reason;
use countersign::diagnostic::Code;

use super::support::Folder;

#[test]
fn every_code_and_every_reason_is_explained() {
    let folder = Folder::new();
    for code in Code::ALL {
        let run = folder.run(&format!("explain {code}")).exits(0);
        assert!(run.stdout.starts_with(code.as_str()), "{}", run.stdout);
    }
    for reason in Reason::ALL {
        let run = folder.run(&format!("explain {reason}")).exits(0);
        assert!(
            run.stdout.starts_with(&format!("{reason}: ")),
            "{}",
            run.stdout
        );
        assert!(
            run.stdout.lines().all(|line| line.chars().count() <= 100),
            "{}",
            run.stdout
        );
    }
}

#[test]
fn case_and_dashes_do_not_matter() {
    let folder = Folder::new();

    assert!(
        folder
            .run("explain cs0201")
            .exits(0)
            .stdout
            .starts_with("CS0201")
    );
    assert!(
        folder
            .run("explain key-unknown")
            .exits(0)
            .stdout
            .starts_with("KEY_UNKNOWN")
    );
}

#[test]
fn json_has_the_same_words() {
    let folder = Folder::new();

    let code = folder.run("explain CS0202 -o json").exits(0).json();
    let reason = folder
        .run("explain TOKEN_EXPIRED --output json")
        .exits(0)
        .json();

    assert_eq!(
        (&code["code"], &code["severity"]),
        (&"CS0202".into(), &"error".into())
    );
    assert_eq!(reason["reason"], "TOKEN_EXPIRED");
    assert!(reason["help"].as_str().unwrap().contains("NTP"));
}

#[test]
fn an_unknown_word_is_a_wrong_use_and_names_the_nearest() {
    let folder = Folder::new();

    let near = folder.run("explain KEY_UNKNWON").exits(2);
    let far = folder.run("explain banana").exits(2);

    assert_eq!(near.stdout, "");
    assert_eq!(
        near.stderr,
        "error: `KEY_UNKNWON` is neither a code nor a reason\nhelp: did you mean `KEY_UNKNOWN`?\n"
    );
    assert!(far.stderr.contains("CS0101 to CS0406"), "{}", far.stderr);
}

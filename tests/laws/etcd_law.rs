//! The law of records in etcd.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use countersign::engine::EngineStatus;
use countersign::identity::{DeploymentName, ModuleType};
use countersign::internals::{decode_record, open_etcd_record, seal_etcd_record};
use countersign::jose::SigningKey;
use countersign::trust::OwnDeployment;

static OWN: LazyLock<OwnDeployment> = LazyLock::new(|| {
    let key = SigningKey::generate().unwrap();
    let name = DeploymentName::new("dpm-dev").unwrap();
    OwnDeployment::new(ModuleType::new("dpm").unwrap(), name, key)
});

/// What is read from etcd is NEW unless the deployment signed it. What it signed is read as it was
/// written, and believed no more once a byte of it is another.
pub(crate) fn etcd_record(bytes: &[u8]) {
    if let Ok(opened) = open_etcd_record(bytes, &OWN) {
        assert!(opened.signed.is_none());
        assert_eq!(opened.engine.status, EngineStatus::New);
        assert!(!opened.engine.over_loopback);
    }
    let Ok(mut engine) = decode_record(bytes, None) else {
        return;
    };
    engine.suspect = false;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let Ok(mut sealed) = seal_etcd_record(&engine, 7, now, &OWN) else {
        return;
    };
    let opened = open_etcd_record(&sealed, &OWN).unwrap();
    let signed = opened.signed.unwrap();
    assert_eq!((signed.at, signed.replaced), (now, 7));
    assert_eq!(opened.engine.id, engine.id);
    assert_eq!(opened.engine.status, engine.status);
    assert_eq!(opened.engine.constraints, engine.constraints);
    let at = bytes.len() * 7 % sealed.len();
    sealed[at] ^= 1;
    if let Ok(changed) = open_etcd_record(&sealed, &OWN)
        && changed.signed.is_some()
    {
        // Such as a bit of base64 that says nothing, or an unknown field.
        assert_eq!(changed.engine, opened.engine);
    }
}

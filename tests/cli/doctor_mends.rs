//! What `doctor` prints to mend a world does mend it.

use super::super::modules::{ANY_PORT, Running};
use super::{DPE, DPM, World, says, without};

/// The layer of the first engine that failed, as the DPM's doctor tells it.
#[track_caller]
fn failed_at_engine(world: &World, own: &str, code: i32) -> serde_json::Value {
    let run = world.doctor("dpm", own).exits(code);
    let layers = run.json()["peers"][1]["layers"].clone();
    let mut layers = layers.as_array().unwrap().iter();
    let failed = layers.find(|row| row["state"] == "fail");
    failed.unwrap_or_else(|| panic!("{run:#?}")).clone()
}

impl World {
    /// Starts an engine, and waits until it is READY; returns how the DPM's doctor finds the DPM.
    fn with_engine(&mut self) -> (Running, String) {
        let dpe = format!("dpe run --home dpe {ANY_PORT} {}", self.to_dpm);
        let dpe = Running::start(&self.folder, &dpe);
        self.dpm.until("newStatus=READY");
        let port = self.to_dpm.rsplit('=').next().unwrap();
        (dpe, format!("--set ataccama.server.grpc.port={port}"))
    }
}

#[test]
fn engine_whose_deployment_is_trusted_no_more_is_token_and_the_printed_pair_mends_it() {
    let mut world = World::new();
    let (_dpe, own) = world.with_engine();
    without(&world.folder, DPM, "deployments.dpe-dev");
    world.dpm.until("configReloaded");

    let failed = failed_at_engine(&world, &own, 4);

    assert_eq!(
        (&failed["layer"], &failed["side"]),
        (&"token".into(), &"here".into())
    );
    says(
        &failed["detail"].to_string(),
        &["no trusted deployment is called `dpe-dev`"],
    );
    let printed = format!("countersign pair dpm={DPM} dpe=<the engine's file>");
    says(
        &failed["help"].to_string(),
        &[&printed, "countersign deployment add dpe-dev"],
    );
    world
        .folder
        .run(&format!("pair dpm={DPM} dpe={DPE} --yes"))
        .exits(0);
    world.dpm.until("configReloaded");
    world.dpm.until("newStatus=READY");
    world.doctor("dpm", &own).exits(0);
}

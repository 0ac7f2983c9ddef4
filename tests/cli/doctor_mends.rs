//! What `doctor` prints to mend a world does mend it.

use super::super::modules::{ANY_PORT, Running, free_port};
use super::{DPE, DPM, World, fails, says, without};

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

#[test]
fn role_that_the_dpm_does_not_give_its_engine_is_a_line_in_the_dpms_file() {
    let mut world = World::new();
    let (_dpe, own) = world.with_engine();
    let whole = world.folder.read(DPM);
    without(&world.folder, DPM, "deployments.dpe-dev.security.roles");
    world.dpm.until("engineCheckFailed");

    let failed = failed_at_engine(&world, &own, 4);

    let line = "ataccama.one.platform.deployments.dpe-dev.security.roles[0]=IMPERSONATION";
    assert_eq!(
        (&failed["layer"], &failed["side"]),
        (&"way back".into(), &"here".into())
    );
    assert_eq!(
        failed["help"],
        serde_json::json!([format!("write into {DPM}: {line}")])
    );
    assert!(whole.contains(line));
    world
        .folder
        .write(DPM, world.folder.read(DPM) + line + "\n");
    world.dpm.until("newStatus=READY");
    world.doctor("dpm", &own).exits(0);
}

#[test]
fn role_that_an_engine_does_not_give_its_dpm_is_a_line_in_the_engines_file() {
    let mut world = World::new();
    let (_dpe, _) = world.with_engine();
    without(&world.folder, DPE, "deployments.dpm-dev.security.roles");
    world.dpm.until("engineCheckFailed");

    let told = fails(world.doctor("dpe", ""), "way back", "here", 4);

    let line = "ataccama.one.platform.deployments.dpm-dev.security.roles[0]=IMPERSONATION";
    says(&told, &[&format!("write into {DPE}: {line}")]);
    world
        .folder
        .write(DPE, world.folder.read(DPE) + line + "\n");
    world.dpm.until("newStatus=READY");
    world.doctor("dpe", "").exits(0);
}

#[test]
fn engine_that_was_killed_is_to_be_started() {
    let mut world = World::new();
    let port = free_port();
    let own = format!("--set ataccama.server.grpc.port={port} --set server.port=0");
    let start = format!("dpe run --home dpe {own} {}", world.to_dpm);
    let mut dpe = Running::start(&world.folder, &start);
    world.dpm.until("newStatus=READY");
    dpe.child.kill().unwrap();
    let _ = dpe.child.wait();
    world.dpm.until("newStatus=DISCONNECTED");
    let doctor = format!("--set ataccama.server.grpc.port={port}");

    let told = fails(world.doctor("dpe", &doctor), "way back", "here", 1);

    says(
        &told,
        &["the engine does not run", "countersign dpe run --home dpe"],
    );
    let _dpe = Running::start(&world.folder, &start);
    world.dpm.until("newStatus=READY");
    world.doctor("dpe", &doctor).exits(0);
}

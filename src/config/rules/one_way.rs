//! What a one-way engine does not use, and which modules cannot be one.

use crate::config::question::ModuleKind;
use crate::config::read::Reader;
use crate::diagnostic::Code;

const ONE_WAY: &str = "countersign.dpe.one-way";

/// Returns `true` unless another module is to run, which cannot be one-way. A DPM says so at its start:
/// the file of an engine is also read to ask its DPM.
pub(super) fn is_for_dpe(reader: &mut Reader<'_>) -> bool {
    let is_for_dpe = !matches!(reader.question.kind, Some(ModuleKind::Other(_)));
    if !is_for_dpe && let Some(at) = reader.raw(ONE_WAY, &[]) {
        let message = format!("`{ONE_WAY}` is for a DPE: this module serves its gRPC port");
        reader.report(Code::Cs0306, at, message, "remove the setting");
    }
    is_for_dpe
}

/// Notes what has no effect where an engine opens no gRPC port.
pub(super) fn unused(reader: &mut Reader<'_>, names: [&str; 3]) {
    for name in names {
        if let Some(at) = reader.raw(name, &[])
            && reader.is_set(name, &[])
        {
            let message = format!("`{name}` has no effect: a one-way engine opens no gRPC port");
            let help = "remove it, or take calls: `countersign.dpe.one-way=false`";
            reader.report(Code::Cs0305, at, message, help);
        }
    }
}

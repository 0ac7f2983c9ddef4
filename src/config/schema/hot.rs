//! What a reload puts in force.

/// Tells whether a reload puts what stands at `path` in force; all else needs a restart.
pub(in crate::config) fn is_hot<S: AsRef<str>>(path: &[S]) -> bool {
    let is_below = |hot: &&str| {
        let mut path = path.iter();
        hot.split('.')
            .all(|segment| path.next().is_some_and(|at| at.as_ref() == segment))
    };
    HOT.iter().any(is_below)
}

const HOT: [&str; 7] = [
    "ataccama.one.platform.deployments",
    "ataccama.authentication.internal.jwt.generator.key",
    "countersign.deployment.name",
    "countersign.deployments",
    "countersign.reload",
    "countersign.rotation",
    "spring.profiles.active",
];

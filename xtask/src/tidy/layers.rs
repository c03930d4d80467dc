//! Which crate may depend on which: arrows point down only.

use serde_json::Value;

use super::Findings;

/// A library crate and what it stands on.
struct Layer {
    name: &'static str,
    /// Workspace crates that it may depend on directly.
    may_use: &'static [&'static str],
}

/// The layers, lowest first. What is not here (`foliomq`, `xtask`, `benches`) stands on any.
const LAYERS: [Layer; 10] = [
    Layer {
        name: "message",
        may_use: &[],
    },
    Layer {
        name: "mmap-core",
        may_use: &[],
    },
    Layer {
        name: "segment-queue",
        may_use: &["mmap-core"],
    },
    Layer {
        name: "page-queue",
        may_use: &["segment-queue", "mmap-core"],
    },
    Layer {
        name: "commitlog",
        may_use: &["segment-queue", "mmap-core", "message"],
    },
    Layer {
        name: "consumequeue",
        may_use: &["segment-queue", "mmap-core"],
    },
    Layer {
        name: "indexfile",
        may_use: &["mmap-core"],
    },
    Layer {
        name: "store",
        may_use: &[
            "commitlog",
            "consumequeue",
            "indexfile",
            "message",
            "mmap-core",
            "segment-queue",
        ],
    },
    Layer {
        name: "remoting",
        may_use: &["message"],
    },
    Layer {
        name: "client",
        may_use: &["remoting", "message"],
    },
];

/// The names of the library crates, lowest first.
pub(super) fn library_names() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|layer| layer.name)
}

/// Compares every package's dependencies with the layers.
pub(super) fn check(packages: &[Value]) -> Findings {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Value) -> Findings {
    let name = text(package, "name");
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
        let known = ["foliomq", "xtask", "benches"].contains(&name);
        return if known {
            vec![]
        } else {
            vec![format!("{name}: in no layer of layers.rs")]
        };
    };
    let dependencies = package["dependencies"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let workspace_crates = dependencies.iter().filter(|one| !one["path"].is_null());
    workspace_crates
        .filter(|one| !layer.may_use.contains(&text(one, "name")))
        .map(|one| {
            format!(
                "{name} must not depend on {}: it is not below it",
                text(one, "name")
            )
        })
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

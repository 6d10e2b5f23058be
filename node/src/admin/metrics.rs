//! The registry that all parts of a node count in, and its text.

use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::env;

/// A registry whose names begin with `rookery_`, with the build and the start time in it.
pub fn registry() -> Registry {
    let mut registry = Registry::with_prefix("rookery");
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version that runs", build);
    let started_s = (env::wall_ms() / 1_000).cast_signed();
    registry.register(
        "start_time_seconds",
        "When the node was started, Unix time",
        ConstGauge::new(started_s),
    );
    registry
}

/// The registry in the OpenMetrics text format.
pub fn encode(registry: &Registry) -> String {
    let mut out = String::new();
    if let Err(error) = text::encode(&mut out, registry) {
        tracing::error!(%error, "a metric could not be encoded");
        out.clear();
    }
    out
}

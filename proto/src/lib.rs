//! The messages and services that Rookery's nodes speak to each other.

/// Consensus and membership.
pub mod consensus {
    tonic::include_proto!("rookery.consensus.v1");
}

/// Forward streams and leases.
pub mod peer {
    tonic::include_proto!("rookery.peer.v1");
}

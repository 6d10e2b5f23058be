//! The hard interleavings: one file per rule, each of its sentences walked step by step by brokers
//! that share a log by hand. `bench` has the hand.

mod bench;
mod declared_down_but_alive;
mod leases;
mod live_owner_whose_stream_is_down;
mod lives;
mod one_path_per_publish;
mod resumption;
mod route_states;
mod settings;
mod shared;
mod snapshot_on_a_serving_node;
mod time;

use std::sync::Arc;

use super::Broker;
use super::steward::SWEEP_MAX;
use crate::mqtt::{
    Connect, Publication, PublishOut, QoS, ReasonCode, SubOptions, SubscribeFilter, Version, encode,
};
use crate::session;
use crate::state::{Claim, Command, Epoch, LogIndex, NodeId, SweepCursor};
use bench::{Bench, Client, eventually};

const A: NodeId = 1;
const B: NodeId = 2;
const C: NodeId = 3;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

/// A Session Expiry Interval of sessions that outlive their connections.
const KEPT: u32 = 100;

//! Clients that people use, as they come, in both versions over every transport that they have:
//! see `cluster_tests::clients`. `scripts/clients` shows all of it as a table.

use cluster_tests::clients::{Cell, Client};
use cluster_tests::cluster::Cluster;

fn all_cells(name: &str) {
    let rows = Client::named(name).play_all(&Cluster::start(3));
    let failures: Vec<String> = rows.iter().flat_map(|row| row.failures()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let played = rows.iter().flat_map(|row| &row.cells).filter(|cell| **cell == Cell::Ok).count();
    assert!(played > 0, "nothing of {name} was played");
}

#[test]
fn mosquitto() {
    all_cells("mosquitto_pub, mosquitto_sub");
}

#[test]
fn paho_c() {
    all_cells("Paho C");
}

#[test]
fn paho_mqtt() {
    all_cells("paho-mqtt (Python)");
}

#[test]
fn aiomqtt() {
    all_cells("aiomqtt (Python)");
}

#[test]
fn gmqtt() {
    all_cells("gmqtt (Python)");
}

#[test]
fn mqtt_js() {
    all_cells("MQTT.js (Node.js)");
}

#[test]
fn mqtt_js_in_a_browser() {
    all_cells("MQTT.js (Chromium)");
}

#[test]
fn node_red() {
    all_cells("Node-RED");
}

#[test]
fn rumqttc() {
    all_cells("rumqttc (Rust)");
}

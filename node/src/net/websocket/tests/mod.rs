mod frames;
mod opening;
mod origins;

use super::WebSocket;

#[test]
fn the_state_of_a_connection_is_small() {
    assert!(size_of::<WebSocket>() <= 56, "{}", size_of::<WebSocket>());
}

//! Topic filters as strings.

/// Whether the filter has a `+` or `#`.
pub fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|b| b == b'+' || b == b'#')
}

/// `$share/group/filter` as `(group, filter)` [MQTT-4.8.2-1]; `None` for any other filter.
pub fn split_shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// Whether a (not shared) filter matches a topic name [MQTT-4.7.1-2, MQTT-4.7.1-3].
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false; // [MQTT-4.7.2-1]
    }
    let mut words = topic.split('/');
    for level in filter.split('/') {
        match (level, words.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (level, Some(word)) if level == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

//! Topic names and topic filters [MQTT-4.7]: validity, levels, shared subscriptions and a plain
//! matcher. Nothing is ever normalised [MQTT-4.7.3-4].

/// Longest topic name or filter, bytes [MQTT-4.7.3-3].
pub const MAX_TOPIC_BYTES: usize = 65_535;

const SHARE_PREFIX: &str = "$share/";

/// Why a topic name or filter is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("an empty topic")]
    Empty,
    #[error("a topic longer than 65535 bytes")]
    TooLong,
    #[error("U+0000 in a topic")]
    Nul,
    #[error("a wildcard in a topic name")]
    WildcardInName,
    #[error("a topic filter whose # is not its whole last level")]
    MisplacedHash,
    #[error("a topic filter whose + does not fill its level")]
    MisplacedPlus,
    #[error("more topic levels than allowed")]
    TooManyLevels,
    #[error("a shared subscription without a share name")]
    EmptyShareName,
    #[error("a wildcard in a share name")]
    WildcardInShareName,
    #[error("a shared subscription without a topic filter")]
    NoSharedFilter,
}

impl TopicError {
    /// The same text as `Display`, for where no formatting is wanted.
    pub const fn what(self) -> &'static str {
        match self {
            TopicError::Empty => "an empty topic",
            TopicError::TooLong => "a topic longer than 65535 bytes",
            TopicError::Nul => "U+0000 in a topic",
            TopicError::WildcardInName => "a wildcard in a topic name",
            TopicError::MisplacedHash => "a topic filter whose # is not its whole last level",
            TopicError::MisplacedPlus => "a topic filter whose + does not fill its level",
            TopicError::TooManyLevels => "more topic levels than allowed",
            TopicError::EmptyShareName => "a shared subscription without a share name",
            TopicError::WildcardInShareName => "a wildcard in a share name",
            TopicError::NoSharedFilter => "a shared subscription without a topic filter",
        }
    }
}

/// The levels of a topic name or filter; an empty level is a level.
#[inline]
pub fn levels(topic: &str) -> std::str::Split<'_, char> {
    topic.split('/')
}

/// How many levels there are: one more than there are slashes.
#[inline]
pub fn level_count(topic: &str) -> usize {
    1 + topic.bytes().fold(0, |n, b| n + usize::from(b == b'/'))
}

/// Checks a topic name [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2] of at most `max_levels`.
///
/// # Errors
/// The first rule that it breaks.
#[inline]
pub fn valid_name(topic: &str, max_levels: usize) -> Result<(), TopicError> {
    check_text(topic)?;
    if has_wildcard(topic) {
        return Err(TopicError::WildcardInName);
    }
    if max_levels <= topic.len() && level_count(topic) > max_levels {
        return Err(TopicError::TooManyLevels);
    }
    Ok(())
}

/// Checks a topic filter, `$share/group/…` included [MQTT-4.7.1-1], [MQTT-4.7.1-2],
/// [MQTT-4.8.2-1], [MQTT-4.8.2-2]. The share name does not count as a level.
///
/// # Errors
/// The first rule that it breaks.
pub fn valid_filter(filter: &str, max_levels: usize) -> Result<(), TopicError> {
    check_text(filter)?;
    let inner = match filter.strip_prefix(SHARE_PREFIX) {
        None => filter,
        Some(shared) => {
            let (group, inner) = match shared.split_once('/') {
                Some((group, inner)) => (group, Some(inner)),
                None => (shared, None),
            };
            if group.is_empty() {
                return Err(TopicError::EmptyShareName);
            }
            if group.contains(['+', '#']) {
                return Err(TopicError::WildcardInShareName);
            }
            inner.filter(|f| !f.is_empty()).ok_or(TopicError::NoSharedFilter)?
        }
    };
    let mut count = 0;
    let mut rest = levels(inner).peekable();
    while let Some(level) = rest.next() {
        count += 1;
        if level.contains('#') && (level != "#" || rest.peek().is_some()) {
            return Err(TopicError::MisplacedHash);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::MisplacedPlus);
        }
    }
    if count > max_levels { Err(TopicError::TooManyLevels) } else { Ok(()) }
}

fn check_text(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > MAX_TOPIC_BYTES {
        return Err(TopicError::TooLong);
    }
    if topic.bytes().fold(false, |found, b| found | (b == 0)) {
        return Err(TopicError::Nul);
    }
    Ok(())
}

/// Share name and inner filter of a valid `$share/group/filter`; `None` for any other filter.
#[inline]
pub fn parse_share(filter: &str) -> Option<(&str, &str)> {
    let (group, inner) = filter.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
    if group.is_empty() || inner.is_empty() || group.contains(['+', '#']) {
        return None;
    }
    Some((group, inner))
}

/// Whether the topic name is `$SYS` or below it: what a server says about itself, which clients
/// may not use among themselves [section 4.7.2].
#[inline]
pub fn is_servers(topic: &str) -> bool {
    topic.strip_prefix("$SYS").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the filter has a wildcard level; of a string that is no valid filter, whether `+` or
/// `#` occurs in it.
#[inline]
pub fn has_wildcard(filter: &str) -> bool {
    // Without an early exit, so that the compiler can vectorise it.
    filter.bytes().fold(false, |found, b| found | (b == b'+') | (b == b'#'))
}

/// Whether a valid filter (the inner one of a shared subscription) matches a valid topic name. A
/// filter that starts with a wildcard never matches a topic that starts with `$`
/// [MQTT-4.7.2-1]; `a/#` matches `a` too.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut names = levels(topic);
    for level in levels(filter) {
        if level == "#" {
            return true;
        }
        match names.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

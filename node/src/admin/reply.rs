//! Answers that are errors: always `{"error":{"code":…,"message":…}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::control::{ControlError, ErrorBody, ErrorDetail, ErrorKind};

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        error(status, self.kind, self.message)
    }
}

fn error(status: StatusCode, code: ErrorKind, message: String) -> Response {
    (status, Json(ErrorBody { error: ErrorDetail { code, message } })).into_response()
}

pub(super) async fn no_such_path() -> Response {
    ControlError::new(ErrorKind::NotFound, "there is no such path").into_response()
}

pub(super) async fn no_such_method() -> Response {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::Invalid,
        "this path does not take this method".to_owned(),
    )
}

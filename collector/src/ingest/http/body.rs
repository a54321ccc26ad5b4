//! Bodies of requests: read within their limits, decompressed, parsed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use watchkeep_shared::{
    HostId,
    wire::{
        CONTENT_ENCODING_ZSTD,
        codec::{DecodeError, Decoder},
        heartbeat::Batch,
        limits,
        problem::ProblemType,
    },
};

use super::{AgentPort, Refused};
use crate::ingest::Place;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Decoders kept for reuse.
const MAX_DECODERS: usize = 32;

/// Decompression contexts, reused: a fresh one costs as much as the work.
#[derive(Debug, Default)]
pub struct Decoders(Mutex<Vec<Decoder>>);

impl Decoders {
    fn lock(&self) -> MutexGuard<'_, Vec<Decoder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decompress(&self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut pool = self.lock();
        let pooled = pool.pop();
        drop(pool);
        let mut decoder = match pooled {
            Some(decoder) => decoder,
            None => Decoder::new().map_err(|error| decode_problem(&error))?,
        };
        let json = decoder.decompress(body);
        let mut pool = self.lock();
        if pool.len() < MAX_DECODERS {
            pool.push(decoder);
        }
        drop(pool);
        json.map_err(|error| decode_problem(&error))
    }
}

impl AgentPort {
    /// Reads the body, and takes room for what is in it before it is read into many small parts.
    pub(super) fn decode(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        host: HostId,
    ) -> Result<(Batch, Place), Refused> {
        let encoding = headers.get(header::CONTENT_ENCODING);
        match encoding.map(HeaderValue::as_bytes) {
            None | Some(b"identity") => {
                let place = self.place(host, body.len())?;
                return Ok((parse(body)?, place));
            }
            Some(encoding) if encoding == CONTENT_ENCODING_ZSTD.as_bytes() => {}
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                return Err(Refused(
                    ProblemType::BadEncoding,
                    format!("content-encoding {other} is not zstd or identity"),
                ));
            }
        }
        let json = self.decoders.decompress(body)?;
        let place = self.place(host, json.len())?;
        Ok((parse(&json)?, place))
    }
}

pub(super) async fn read(body: Body) -> Result<Bytes, Refused> {
    let limited = Limited::new(body, limits::MAX_BODY_BYTES).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, limited)
        .await
        .map_err(|_| {
            Refused(
                ProblemType::BadBody,
                "the body took too long to arrive".to_owned(),
            )
        })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refused(
            ProblemType::BodyTooLarge,
            format!("a body has at most {} bytes", limits::MAX_BODY_BYTES),
        )),
        Err(error) => Err(Refused(
            ProblemType::BadBody,
            format!("the body broke off: {error}"),
        )),
    }
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused(ProblemType::BadBody, error.to_string()))
}

fn decode_problem(error: &DecodeError) -> Refused {
    let kind = match error {
        DecodeError::TooLarge => ProblemType::BodyTooLarge,
        DecodeError::Zstd(_) => ProblemType::BadEncoding,
        DecodeError::Json(_) => ProblemType::BadBody,
    };
    Refused(kind, error.to_string())
}

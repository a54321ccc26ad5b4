//! Scripts, styles and icons: laid out by `build.rs`, embedded in the program, served under an
//! address that names their content, so that a browser may keep them for ever.

use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

/// One embedded file.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    /// Differs whenever the content does.
    version: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

const ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// The address of a file for pages.
///
/// # Panics
/// If no such file is embedded: a template names a file that `build.rs` does not place.
pub(crate) fn url(name: &str) -> String {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.expect("templates name only files that build.rs places");
    format!("/assets/{}/{}", asset.version, asset.name)
}

/// `GET /assets/{version}/{name}`. An old version is not found rather than answered wrongly.
pub(crate) async fn serve(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let found = ASSETS
        .iter()
        .find(|asset| asset.name == name && asset.version == version);
    let Some(asset) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let accepts = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    let packed = accepts.is_some_and(|value| value.contains("gzip"));
    let fixed = [
        (header::CONTENT_TYPE, media_type(asset.name)),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::VARY, "accept-encoding"),
    ];
    if packed {
        (fixed, [(header::CONTENT_ENCODING, "gzip")], asset.gzip).into_response()
    } else {
        (fixed, asset.plain).into_response()
    }
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_content_and_a_media_type() {
        for asset in ASSETS {
            assert!(asset.plain.len() > 100, "{}", asset.name);
            assert!(asset.gzip.starts_with(&[0x1f, 0x8b]), "{}", asset.name);
            assert_ne!(
                media_type(asset.name),
                "application/octet-stream",
                "{}",
                asset.name
            );
            assert!(url(asset.name).ends_with(asset.name));
        }
    }
}

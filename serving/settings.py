"""Settings of serving from the environment, prefix FRESHRANK_."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.preprocess import MediaLimits


class ServingSettings(BaseSettings):
    """Where Triton is, how long to wait for it, and how large a medium may be."""

    model_config = SettingsConfigDict(env_prefix="FRESHRANK_", extra="ignore")

    triton: str = Field("127.0.0.1:8001", description="host:port of Triton's gRPC endpoint")
    triton_score_timeout_s: float = Field(2.0, gt=0, description="limit of one scoring call, seconds")
    triton_encode_timeout_s: float = Field(20.0, gt=0, description="limit of one encoding call, seconds")
    triton_max_message_bytes: int = Field(64 << 20, ge=1 << 20, description="largest gRPC message, both ways")
    triton_shared_memory: bool = Field(
        False, description="hand rows to Triton in /dev/shm: it runs on this machine and may map what we put there"
    )
    triton_tls: bool = Field(False, description="speak TLS to Triton")
    triton_tls_ca: Path | None = Field(None, description="PEM file of the authorities that sign Triton's certificate")
    triton_tls_key: Path | None = Field(None, description="PEM file of the client's private key")
    triton_tls_certificate: Path | None = Field(None, description="PEM file of the client's certificate chain")

    media_max_bytes: int = Field(5 << 20, ge=1, description="largest file of a picture, a video or a sound, bytes")
    media_max_pixels: int = Field(16_000_000, ge=1, description="largest picture or frame of a video, pixels")
    media_max_seconds: float = Field(600.0, gt=0, description="longest video, seconds")
    media_max_frames: int = Field(2_000, ge=1, description="frames of a video that are decoded at most")

    @property
    def media_limits(self) -> MediaLimits:
        return MediaLimits(
            max_bytes=self.media_max_bytes,
            max_pixels=self.media_max_pixels,
            max_seconds=self.media_max_seconds,
            max_frames=self.media_max_frames,
        )

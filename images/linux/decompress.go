package linux

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/pierrec/lz4/v4"
)

// errTooLarge: data unpacks to more than it declared.
var errTooLarge = errors.New("uncompressed data exceeds its declared size")

var (
	gzipMagic  = []byte{0x1f, 0x8b}
	bzip2Magic = []byte("BZh")
	xzMagic    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	lz4Legacy  = []byte{0x02, 0x21, 0x4c, 0x18}
)

func isGzip(data []byte) bool { return bytes.HasPrefix(data, gzipMagic) }

// decompress unpacks data by its magic, at most maxBytes of it. Data with no
// known magic is returned as it is.
func decompress(ctx context.Context, data []byte, maxBytes int64) ([]byte, error) {
	in := bytes.NewReader(data)
	switch {
	case isGzip(data):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		z.Multistream(false) // the kernel build may pad after the stream
		return readCapped(z, maxBytes)
	case bytes.HasPrefix(data, bzip2Magic):
		return readCapped(bzip2.NewReader(in), maxBytes)
	case bytes.HasPrefix(data, lz4Legacy):
		return readCapped(lz4.NewReader(in), maxBytes)
	case bytes.HasPrefix(data, xzMagic):
		return decompressBy(ctx, data, maxBytes, "xz", "-dc", "--single-stream")
	case bytes.HasPrefix(data, zstdMagic):
		return decompressBy(ctx, data, maxBytes, "zstd", "-dc")
	}
	return data, nil
}

// decompressBy runs a program of the host: xz and zstd are on every Debian
// system that has kernels packed with them.
func decompressBy(ctx context.Context, data []byte, maxBytes int64, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(data)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s (Debian package xz-utils or zstd): %w", name, err)
	}
	out, err := readCapped(stdout, maxBytes)
	if err != nil {
		cancel() // else the program would wait for a reader for ever
	}
	return out, errors.Join(err, cmd.Wait())
}

// readCapped reads all of r, and fails rather than hold more than maxBytes.
func readCapped(r io.Reader, maxBytes int64) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if int64(len(out)) > maxBytes {
		return nil, errTooLarge
	}
	return out, nil
}

package vmmtest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// RawKernel writes a multiboot kernel that is nothing but these instructions, which
// are entered in 32-bit protected mode.
func RawKernel(t testing.TB, code []byte) string {
	t.Helper()
	const (
		magic, useAddresses = 0x1badb002, 1 << 16
		loadAddr            = 0x10_0000
		headerBytes         = 32
	)
	flags := uint32(useAddresses)
	end := uint32(loadAddr + headerBytes + len(code))
	var image []byte
	for _, field := range []uint32{
		magic, flags, -(magic + flags), loadAddr, loadAddr, end, end, loadAddr + headerBytes,
	} {
		image = binary.LittleEndian.AppendUint32(image, field)
	}
	path := filepath.Join(t.TempDir(), "kernel.bin")
	if err := os.WriteFile(path, append(image, code...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

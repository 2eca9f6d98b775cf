package pci

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// function makes a directory as sysfs has for a function.
func function(t *testing.T, root, name, vendor, device string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{
		"vendor": []byte(vendor + "\n"), "device": []byte(device + "\n"), "enable": []byte("0\n"),
		"config": make([]byte, 256), "resource0": make([]byte, 4096),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	function(t, root, "0000:00:00.0", "0x8086", "0x0001")
	function(t, root, "0000:00:01.0", "0xf11e", "0x0002")
	want := function(t, root, "0000:00:02.0", "0xf11e", "0x0001")
	if got, err := Find(root, 0xf11e, 1); err != nil || got != want {
		t.Errorf("found %q, %v", got, err)
	}
	for _, dir := range []string{root, filepath.Join(root, "none")} {
		if _, err := Find(dir, 0xf11e, 3); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestOpenEnablesAndCloseDisables(t *testing.T) {
	dir := function(t, t.TempDir(), "0000:00:02.0", "0xf11e", "0x0001")
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	f, err := Open(dir, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if c := binary.LittleEndian.Uint16(read("config")[4:]); c != commandMemory|commandBusMaster {
		t.Errorf("command register %#x", c)
	}
	if e := read("enable")[0]; e != '1' {
		t.Errorf("enable is %c", e)
	}
	f.Store32(8, 0x01020304)
	f.Store64(16, 0x1112131415161718)
	if got := f.Load32(20); got != 0x11121314 {
		t.Errorf("upper half %#x", got)
	}
	if _, err := Open(dir, 4096); !errors.Is(err, ErrInUse) {
		t.Errorf("a second owner: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if c := binary.LittleEndian.Uint16(read("config")[4:]); c != commandMemory {
		t.Errorf("command register %#x after Close", c)
	}
	if e := read("enable")[0]; e != '0' {
		t.Errorf("enable is %c after Close", e)
	}
	if got := binary.LittleEndian.Uint32(read("resource0")[8:]); got != 0x01020304 {
		t.Errorf("register %#x", got)
	}
	if f, err = Open(dir, 4096); err != nil {
		t.Fatalf("again: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

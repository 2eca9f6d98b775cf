package vmm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// rawKernel writes a multiboot kernel that is nothing but these instructions, which
// are entered in 32-bit protected mode.
func rawKernel(t *testing.T, code []byte) string {
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

// countBoots counts in the clock's memory, which survives a reset, prints the count,
// resets twice and then powers off.
var countBoots = []byte{
	0xb0, 0x40, 0xe6, 0x70, // mov $0x40, %al; out %al, $0x70
	0xe4, 0x71, 0x88, 0xc4, // in $0x71, %al; mov %al, %ah
	0xfe, 0xc4, 0xb0, 0x40, // inc %ah; mov $0x40, %al
	0xe6, 0x70, 0x88, 0xe0, // out %al, $0x70; mov %ah, %al
	0xe6, 0x71, 0x04, 0x30, // out %al, $0x71; add $'0', %al
	0x66, 0xba, 0xf8, 0x03, 0xee, // mov $0x3f8, %dx; out %al, (%dx)
	0x3c, 0x33, 0x74, 0x08, // cmp $'3', %al; je off
	0xb0, 0x06, 0x66, 0xba, 0xf9, 0x0c, 0xee, 0xf4, // mov $6, %al; mov $0xcf9, %dx; out; hlt
	0x66, 0xba, 0x04, 0x06, // off: mov $0x604, %dx
	0x66, 0xb8, 0x00, 0x20, // mov $0x2000, %ax
	0x66, 0xef, 0xf4, // out %ax, (%dx); hlt
}

func TestResetBootsAgain(t *testing.T) {
	out := newSerialLog()
	m := newMachine(t, Config{CPUs: 2, SerialOut: out, Boot: BootFiles{Kernel: rawKernel(t, countBoots)}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByPowerOff || out.String() != "123" {
		t.Errorf("outcome %+v, serial output %q", o, out)
	}
}

func TestNoReboot(t *testing.T) {
	out := newSerialLog()
	m := newMachine(t, Config{NoReboot: true, SerialOut: out, Boot: BootFiles{Kernel: rawKernel(t, countBoots)}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByReset || out.String() != "1" {
		t.Errorf("outcome %+v, serial output %q", o, out)
	}
}

// TestTripleFault loads an empty IDT and divides by zero.
func TestTripleFault(t *testing.T) {
	m := newMachine(t, Config{Boot: BootFiles{Kernel: rawKernel(t, []byte{0x31, 0xc9, 0xf7, 0xf1})}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByError {
		t.Errorf("outcome %+v", o)
	} else {
		t.Log(o.Err)
	}
}

// TestPauseTakesTheGuestsWish pauses at random moments a guest that resets itself:
// a reset that was asked for must not be lost in a saved state.
func TestPauseTakesTheGuestsWish(t *testing.T) {
	for range repeats(50) {
		out := newSerialLog()
		m := newMachine(t, Config{SerialOut: out, Boot: BootFiles{Kernel: rawKernel(t, countBoots)}})
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		err := m.Pause()
		if err == nil {
			m = cloneMachine(t, m)
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
		}
		if o := awaitEnd(t, m); o.Kind != EndedByPowerOff {
			t.Fatalf("outcome %+v, serial output %q", o, out)
		}
	}
}

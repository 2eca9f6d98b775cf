package vmm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// The places of the programs below. The first 1 GiB and the device are mapped one to one.
const (
	programAddr = 0x8000
	absentAddr  = 0x20_0000
	deviceAddr  = 0xd000_0000
)

// newProgram makes a machine whose vCPU is about to run code at CPL 3, RBX being
// absentAddr, a page without a slot, and RCX deviceAddr.
func newProgram(t *testing.T, code []byte) *Machine {
	t.Helper()
	m := newMachine(t, Config{Boot: BootFiles{Kernel: vmmtest.RawKernel(t, []byte{0xf4})}})
	const large = 0xe7 // present, writable, user, accessed, dirty, 2 MiB
	entries := map[memory.GPA]uint64{0x1000: 0x2067, 0x2000: 0x3067, 0x2018: 0x4067, 0x4000 + 8*(deviceAddr>>21&0x1ff): deviceAddr | large}
	for i := range memory.GPA(512) {
		entries[0x3000+8*i] = uint64(i)<<21 | large
	}
	for at, entry := range entries {
		if err := m.mem.StoreUint64(at, entry); err != nil {
			t.Fatal(err)
		}
	}
	absent := m.mem.NewPageSet()
	absent.Add(absentAddr)
	err := errors.Join(m.mem.WriteAt(programAddr, code), m.vm.SetAccess(nil, absent), m.cpus[0].do(enterProgram))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func enterProgram(c *kvm.VCPU) error {
	s, err := c.Sregs()
	if err != nil {
		return err
	}
	s.CS = kvm.Segment{Limit: 0xffff_ffff, Selector: 0x13, Typ: 0xb, Present: 1, DPL: 3, S: 1, L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x1b, Typ: 0x3, Present: 1, DPL: 3, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CR0 = 1<<31 | 1<<16 | 1<<5 | 1<<4 | 1<<1 | 1<<0 // PG WP NE ET MP PE
	s.CR3 = 0x1000
	s.CR4 = 1<<10 | 1<<9 | 1<<5          // OSXMMEXCPT OSFXSR PAE
	s.EFER = 1<<11 | 1<<10 | 1<<8 | 1<<0 // NXE LMA LME SCE
	regs := &kvm.Regs{RIP: programAddr, RBX: absentAddr, RCX: deviceAddr, RFLAGS: 3<<12 | 1<<1}
	return errors.Join(c.SetSregs(s), c.SetRegs(regs))
}

// A move that KVM's emulator does not know reaches RAM that is absent, and a device.
func TestEmulate(t *testing.T) {
	m := newProgram(t, []byte{
		0xf2, 0x0f, 0x10, 0x03, // movsd (%rbx),%xmm0
		0xf2, 0x0f, 0x11, 0x43, 0x10, // movsd %xmm0,16(%rbx)
		0xf2, 0x0f, 0x11, 0x01, // movsd %xmm0,(%rcx)
		0xe6, 0xf4, // out %al,$0xf4
	})
	dev := &scratch{}
	if err := m.board.mmio.Insert(deviceAddr, 0x1000, dev); err != nil {
		t.Fatal(err)
	}
	want := []byte("eight by")
	if err := m.mem.WriteAt(absentAddr, want); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByDebugExit {
		t.Fatalf("outcome %+v", o)
	}
	got := make([]byte, 8)
	if err := m.mem.ReadAt(absentAddr+16, got); err != nil || !bytes.Equal(got, want) || !bytes.Equal(dev.written, want) {
		t.Errorf("memory %q, device %q, want %q (%v)", got, dev.written, want, err)
	}
}

// What nobody can do on what is no watched RAM is an invalid opcode for the program, which has no
// handler for it here.
func TestEmulateUnknown(t *testing.T) {
	m := newProgram(t, []byte{0x66, 0x0f, 0x38, 0x00, 0x03}) // pshufb (%rbx),%xmm0
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); !errors.Is(o.Err, ErrTripleFault) {
		t.Errorf("outcome %+v", o)
	}
}

// Devices get at most 8 bytes at a time.
func TestAccessOfDevice(t *testing.T) {
	p, dev := testPeripherals(t)
	p.mem = newTestMemory(t)
	data := bytes.Repeat([]byte{5}, 16)
	if err := p.access(0x1_0000_0100, data, true); err != nil || len(dev.written) != 0 {
		t.Errorf("no device: %v, %x", err, dev.written)
	}
	if err := p.mmio.Insert(deviceAddr, 0x100, dev); err != nil {
		t.Fatal(err)
	}
	if err := p.access(deviceAddr, data, true); err != nil || !bytes.Equal(dev.written, data) {
		t.Errorf("written %x (%v)", dev.written, err)
	}
	if err := p.access(deviceAddr, data, false); err != nil || data[0] != 0 || data[8] != 8 || data[9] != 9 {
		t.Errorf("read %x (%v)", data, err)
	}
}

func newTestMemory(t *testing.T) *memory.Guest {
	t.Helper()
	g, err := memory.New([]memory.Region{{SizeBytes: memory.PageSize}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

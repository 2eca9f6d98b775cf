package kvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fineline-vmm/fineline/memory"
)

// counter counts in ebx and sends ebx plus the low lane of xmm1 to port 0x80. It
// is made of what KVM's emulator knows, for CPL 0 on software KVM.
var counter = cat(
	movEDX(0x80),
	[]byte{0xff, 0xc3}, // 1: inc %ebx
	[]byte{0xf3, 0x0f, 0x7f, 0x0c, 0x25, 0x20, 0x00, 0x01, 0x00}, // movdqu %xmm1,0x10020
	[]byte{0x89, 0x1c, 0x25, 0x00, 0x00, 0x01, 0x00},             // mov %ebx,0x10000
	[]byte{0x8b, 0x04, 0x25, 0x20, 0x00, 0x01, 0x00},             // mov 0x10020,%eax
	[]byte{0x01, 0xd8}, // add %ebx,%eax
	[]byte{0xef},       // out %eax,%dx
	[]byte{0xeb, 0xe2}, // jmp 1b
)

// copyMemory copies all RAM of m to o.
func (m *testVM) copyMemory(o *testVM) {
	m.Helper()
	page := make([]byte, memory.PageSize)
	for _, r := range m.mem.Regions() {
		for gpa := r.Base; gpa < r.Base+memory.GPA(r.SizeBytes); gpa += memory.PageSize {
			must(m, m.mem.ReadAt(gpa, page))
			must(m, o.mem.WriteAt(gpa, page))
		}
	}
}

// viaForm is what a vCPU's state goes through on its way to another process.
func viaForm(t testing.TB, in *VCPUState) *VCPUState {
	t.Helper()
	data, err := in.AppendBinary(nil)
	must(t, err)
	out := new(VCPUState)
	must(t, out.UnmarshalBinary(data))
	return out
}

// move saves m and restores it in a VM of its own, as a migration does.
func (m *testVM) move() *testVM {
	m.Helper()
	o := newTestVM(m.TB, VMOptions{}, len(m.cpus))
	m.copyMemory(o)
	var states []*VCPUState
	for _, c := range m.cpus {
		s, err := c.State()
		must(m, err)
		states = append(states, viaForm(m, s))
	}
	vm, err := m.vm.State()
	must(m, err)
	data, err := vm.AppendBinary(nil)
	must(m, err)
	arrived := new(VMState)
	must(m, arrived.UnmarshalBinary(data))
	must(m, o.vm.Restore(arrived))
	for i, c := range o.cpus {
		must(m, c.Restore(states[i]))
		must(m, c.NotifyPaused())
	}
	return o
}

func TestGuestGoesOnAfterRestore(t *testing.T) {
	for _, level := range cpls {
		t.Run(level.name, func(t *testing.T) {
			m := newTestVM(t, VMOptions{}, 1)
			m.load(counter)
			m.setLane(m.cpus[0], 1, 1000)
			m.enter(m.cpus[0], level.cpl)
			for i := range uint32(60) {
				c := m.cpus[0]
				e := m.expect(c, 0x80)
				if got, want := binary.LittleEndian.Uint32(e.IO.Data), 1000+i+1; got != want {
					t.Fatalf("step %d: the guest says %d, want %d", i, got, want)
				}
				if i%20 == 19 {
					if _, err := c.State(); !errors.Is(err, ErrUnfinishedExit) {
						t.Fatalf("State inside an instruction: %v, want ErrUnfinishedExit", err)
					}
					if err := c.Restore(new(VCPUState)); !errors.Is(err, ErrUnfinishedExit) {
						t.Fatalf("Restore inside an instruction: %v, want ErrUnfinishedExit", err)
					}
					m.settle(c)
					m = m.move()
				}
			}
		})
	}
}

// setLane sets the low 32 bits of xmm register n in the FXSAVE image.
func (m *testVM) setLane(c *VCPU, n int, value uint32) {
	m.Helper()
	const (
		xmmOffset    = 160 // Intel SDM vol. 1, 10.5.1
		xstateBV     = 512 // XSAVE header: which parts are not in their initial state
		sseComponent = 2
	)
	s := new(VCPUState)
	must(m, c.saveFPU(s))
	binary.LittleEndian.PutUint32(s.XSave[xmmOffset+16*n:], value)
	s.XSave[xstateBV] |= sseComponent
	must(m, c.restoreFPU(s))
}

// Everything that was saved comes back when saved again from the restored VM.
func TestStateRoundTrip(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 2)
	m.load(counter)
	c := m.cpus[0]
	m.enter(c, 3)
	m.enableAVX(c)
	m.setLane(c, 0, 77)
	must(t, c.writeMSRs([]MSR{{Index: msrLSTAR, Value: 0xffff_8000_0000_1234}, {Index: msrSTAR, Value: 0x0023_0010_0000_0000}, {Index: msrMTRRDefault, Value: 0xc06}}))
	debug := new(VCPUState)
	must(t, c.saveDebugRegs(debug))
	debug.DebugRegs.DB[2] = 0x1234_5000
	must(t, c.restoreDebugRegs(debug))
	must(t, m.vm.SetIRQLine(4, true))
	m.expect(c, 0x80)
	m.settle(c)

	o := m.move()
	for i := range m.cpus {
		before, err := m.cpus[i].State()
		must(t, err)
		after, err := o.cpus[i].State()
		must(t, err)
		if diff := cmp.Diff(steady(before), steady(after)); diff != "" {
			t.Errorf("vCPU %d changed by restore (-before +after):\n%s", i, diff)
		}
	}
	before, err := m.vm.State()
	must(t, err)
	after, err := o.vm.State()
	must(t, err)
	for i := range before.PIT.Channels {
		before.PIT.Channels[i].CountLoadTime, after.PIT.Channels[i].CountLoadTime = 0, 0
	}
	before.ClockNS, after.ClockNS = 0, 0
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("VM changed by restore (-before +after):\n%s", diff)
	}
}

const (
	msrSTAR        = 0xc000_0081
	msrLSTAR       = 0xc000_0082
	msrMTRRDefault = 0x2ff
)

// steady is the state without what goes on by itself.
func steady(s *VCPUState) *VCPUState {
	const hyperVRunTime, hyperVReferenceTime = 0x4000_0010, 0x4000_0020
	s.TSC = TSC{KHz: s.TSC.KHz}
	s.MSRs = slices.DeleteFunc(s.MSRs, func(m MSR) bool {
		return m.Index == msrTSC || m.Index == hyperVRunTime || m.Index == hyperVReferenceTime
	})
	return s
}

// Clocks never go back, and vCPUs keep their TSCs' distance to the tick.
func TestClocksGoForward(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 2)
	const apart = 123_456
	first, err := m.cpus[0].tscOffset()
	must(t, err)
	must(t, m.cpus[1].setTSCOffset(first+apart))
	if got, err := m.cpus[1].tscOffset(); err != nil || got != first+apart {
		t.Logf("this KVM ignores TSC offsets (got %d, %v): the distance is not checked", got, err)
	}
	distance := func(m *testVM) uint64 {
		a, err := m.cpus[0].tscOffset()
		must(t, err)
		b, err := m.cpus[1].tscOffset()
		must(t, err)
		return b - a
	}
	want := distance(m)
	for round := range 3 {
		var tscs []uint64
		for _, c := range m.cpus {
			now, err := c.getTSC()
			must(t, err)
			tscs = append(tscs, now.Value)
		}
		clock, err := m.vm.State()
		must(t, err)
		m = m.move()
		for i, c := range m.cpus {
			now, err := c.getTSC()
			must(t, err)
			if now.Value <= tscs[i] {
				t.Errorf("round %d: TSC of vCPU %d went from %d back to %d", round, i, tscs[i], now.Value)
			}
		}
		after, err := m.vm.State()
		must(t, err)
		if after.ClockNS < clock.ClockNS {
			t.Errorf("round %d: kvmclock went from %d back to %d", round, clock.ClockNS, after.ClockNS)
		}
		if got := distance(m); got != want {
			t.Errorf("round %d: TSC offsets are %d apart, were %d", round, got, want)
		}
	}
}

func TestTSCShiftIsSharedUntilNextRestore(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	shift := func(own uint64) uint64 {
		got, err := m.vm.shiftTSC(func() (uint64, error) { return own, nil })
		must(t, err)
		return got
	}
	if got := shift(5); got != 5 {
		t.Errorf("first vCPU: shift %d, want its own", got)
	}
	if got := shift(9); got != 5 {
		t.Errorf("second vCPU: shift %d, want the first's", got)
	}
	s, err := m.vm.State()
	must(t, err)
	must(t, m.vm.Restore(s))
	if got := shift(9); got != 9 {
		t.Errorf("after VM.Restore: shift %d, want a new one", got)
	}
}

func TestRestoreRefuses(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	good, err := c.State()
	must(t, err)
	cases := []struct {
		name   string
		damage func(*VCPUState)
		want   error
		text   string
	}{
		{"short LAPIC", func(s *VCPUState) { s.LAPIC = s.LAPIC[:10] }, ErrBadState, "LAPIC of 10 bytes"},
		{"short XSAVE", func(s *VCPUState) { s.XSave = nil }, ErrBadState, "XSAVE area of 0 bytes"},
		{"long XSAVE", func(s *VCPUState) { s.XSave = make([]byte, 1<<20) }, ErrBadState, "XSAVE area of 1048576 bytes"},
		{"many MSRs", func(s *VCPUState) { s.MSRs = make([]MSR, MaxSavedMSRs+1) }, ErrBadState, "4097 MSRs"},
		{"many XCRs", func(s *VCPUState) { s.XCRs.NrXRCS = 17 }, ErrBadState, "17 extended"},
		{"much CPUID", func(s *VCPUState) { s.CPUID = make([]CPUIDEntry, 257) }, nil, "KVM_SET_CPUID2: 257 entries"},
		{"unknown MSR", func(s *VCPUState) { s.MSRs = []MSR{{Index: msrLSTAR, Value: 1}, {Index: 0xdead, Value: 2}} }, ErrMSRRefused, "0xdead"},
		{"other TSC", func(s *VCPUState) { s.TSC.KHz = 3 }, ErrTSCFrequency, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := viaForm(t, good)
			tc.damage(s)
			err := c.Restore(s)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %v with %q", err, tc.want, tc.text)
			}
		})
	}
}

// Saved forms outlive this build: whoever changes one of these sums changes the state's version.
func TestSavedForm(t *testing.T) {
	s := new(VCPUState)
	var next byte
	fill(reflect.ValueOf(s).Elem(), &next)
	data, err := s.AppendBinary(nil)
	must(t, err)
	const want = 0x2d4e63fa
	if got := crc32.ChecksumIEEE(data); got != want {
		t.Errorf("the saved form of %d bytes has the sum %#x, not %#x", len(data), got, want)
	}
	if diff := cmp.Diff(s, viaForm(t, s), cmp.FilterPath(isBlank, cmp.Ignore())); diff != "" {
		t.Errorf("changed by its saved form (-before +after):\n%s", diff)
	}
	for n := range data {
		if err := new(VCPUState).UnmarshalBinary(data[:n]); !errors.Is(err, ErrBadState) {
			t.Fatalf("%d of %d bytes: %v, want ErrBadState", n, len(data), err)
		}
	}
	if err := new(VCPUState).UnmarshalBinary(append(data, 0)); !errors.Is(err, ErrBadState) {
		t.Errorf("a byte too many: %v, want ErrBadState", err)
	}
	copy(data[len(image(new(savedVCPU)))-20:], bytes.Repeat([]byte{0xff}, 16)) // the lengths
	if err := new(VCPUState).UnmarshalBinary(data); !errors.Is(err, ErrBadState) {
		t.Errorf("endless lists: %v, want ErrBadState", err)
	}
}

func TestSavedVMForm(t *testing.T) {
	s, back := new(VMState), new(VMState)
	var next byte
	fill(reflect.ValueOf(s).Elem(), &next)
	data, err := s.AppendBinary(nil)
	must(t, err)
	const want = 0xa7e90025
	if got := crc32.ChecksumIEEE(data); got != want {
		t.Errorf("the saved form of %d bytes has the sum %#x, not %#x", len(data), got, want)
	}
	must(t, back.UnmarshalBinary(data))
	if diff := cmp.Diff(s, back, cmp.FilterPath(isBlank, cmp.Ignore())); diff != "" {
		t.Errorf("changed by its saved form (-before +after):\n%s", diff)
	}
	if err := back.UnmarshalBinary(data[1:]); !errors.Is(err, ErrBadState) {
		t.Errorf("a byte less: %v, want ErrBadState", err)
	}
}

func isBlank(p cmp.Path) bool { return strings.HasSuffix(p.String(), "_") }

// fill gives every number in v another value, and every list two elements.
func fill(v reflect.Value, next *byte) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "_" {
				fill(v.Field(i), next)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), next)
		}
	case reflect.Int64:
		*next++
		v.SetInt(int64(*next))
	default:
		*next++
		v.SetUint(uint64(*next))
	}
}

package kvm

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// storer writes one word to every address of the table at tableAddr, which ends
// with 0, then accesses donePort, then starts over.
var storer = cat(
	[]byte{0xbe, 0x00, 0x90, 0x00, 0x00}, // 1: mov $0x9000,%esi
	[]byte{0x48, 0x8b, 0x3e},             // 2: mov (%rsi),%rdi
	[]byte{0x48, 0x85, 0xff},             // test %rdi,%rdi
	[]byte{0x74, 0x08},                   // jz 3f
	[]byte{0x48, 0x89, 0x37},             // mov %rsi,(%rdi)
	[]byte{0x83, 0xc6, 0x08},             // add $8,%esi
	[]byte{0xeb, 0xf0},                   // jmp 2b
	done,                                 // 3:
	[]byte{0xeb, 0xe3},                   // jmp 1b
)

const smallRing = memory.PageSize // 256 entries, of which KVM keeps some for itself

// sources runs a test with both kinds of dirty tracking.
func sources(t *testing.T, test func(*testing.T, VMOptions)) {
	for _, s := range []struct {
		name    string
		options VMOptions
	}{{"log", VMOptions{}}, {"ring", VMOptions{DirtyRingBytesPerVCPU: smallRing}}} {
		t.Run(s.name, func(t *testing.T) {
			sys := openKVM(t)
			if s.options.DirtyRingBytesPerVCPU != 0 && sys.capability(capDirtyLogRingAcqRel) == 0 {
				t.Skip("needs KVM_CAP_DIRTY_LOG_RING_ACQ_REL")
			}
			test(t, s.options)
		})
	}
}

// newStorer is a VM whose two vCPUs run storer. They have run once: KVM reports a page
// also when the guest touches it for the first time and only reads, since it maps it
// writable at once.
func newStorer(t testing.TB, o VMOptions) *testVM {
	t.Helper()
	m := newTestVM(t, o, 2)
	m.load(storer)
	for _, c := range m.cpus {
		m.enter(c, 3)
		m.write(c, []memory.GPA{dataAddr})
	}
	return m
}

// write lets the vCPU write one word in each of pages; it returns how often the
// ring was full.
func (m *testVM) write(c *VCPU, pages []memory.GPA) (full int) {
	m.Helper()
	table := make([]byte, 0, memory.PageSize)
	for len(pages) > 0 {
		n := min(len(pages), memory.PageSize/8-1)
		table = table[:0]
		for _, gpa := range pages[:n] {
			table = binary.LittleEndian.AppendUint64(table, uint64(gpa)+8*uint64(n%500))
		}
		table = binary.LittleEndian.AppendUint64(table, 0)
		must(m, m.mem.WriteAt(tableAddr, table))
		for {
			e := m.next(c)
			if e.Reason == ExitDirtyRingFull {
				full++
				must(m, c.HarvestRing())
				continue
			}
			if e.Reason != ExitIO || e.IO.Port != donePort {
				m.Fatalf("%v, want the guest to be done", e)
			}
			break
		}
		pages = pages[n:]
	}
	return full
}

func (m *testVM) collect(src memory.DirtySource) []memory.GPA {
	m.Helper()
	set := m.mem.NewPageSet()
	must(m, src.Collect(set))
	return slices.DeleteFunc(list(set), isPageTable)
}

// isPageTable tells the guest's page tables: with nested paging the processor's own
// walk counts as a store to them (AMD APM vol. 2, 15.25.5).
func isPageTable(gpa memory.GPA) bool { return gpa >= pml4Addr && gpa < codeAddr }

func (m *testVM) wantPages(what string, got, want []memory.GPA) {
	m.Helper()
	not := func(list []memory.GPA) func(memory.GPA) bool {
		return func(gpa memory.GPA) bool { return slices.Contains(list, gpa) }
	}
	lost := slices.DeleteFunc(slices.Clone(want), not(got))
	extra := slices.DeleteFunc(slices.Clone(got), not(want))
	if len(lost) > 0 || len(extra) > 0 {
		m.Errorf("%s: %d pages reported, %d written; lost %#x, too many %#x", what, len(got), len(want), lost, extra)
	}
}

func pages(first memory.GPA, n int) []memory.GPA {
	var list []memory.GPA
	for i := range n {
		list = append(list, first+memory.GPA(i)*memory.PageSize)
	}
	return list
}

func TestDirtyPagesAreExact(t *testing.T) {
	sources(t, func(t *testing.T, o VMOptions) {
		m := newStorer(t, o)
		c := m.cpus[0]
		src := m.vm.DirtySource(m.mem)
		before := pages(dataAddr, 3)
		m.write(c, before) // not tracked yet
		must(t, src.Start())

		m.wantPages("nothing written", m.collect(src), nil)
		rounds := [][]memory.GPA{
			{dataAddr},
			{dataAddr}, // again: it was re-armed
			{dataAddr + 5*memory.PageSize, dataAddr + 64*memory.PageSize, (lowPages - 1) * memory.PageSize},
			{highRAM, highRAM + (highPages-1)*memory.PageSize},
			nil,
			slices.Concat(pages(dataAddr, 64), pages(highRAM, highPages)),
		}
		for i, want := range rounds {
			m.write(m.cpus[i%2], want)
			m.wantPages("round", m.collect(src), want)
			if t.Failed() {
				t.Fatalf("in round %d", i)
			}
		}

		m.write(c, before)
		must(t, src.Stop())
		m.write(c, []memory.GPA{dataAddr + 9*memory.PageSize}) // not tracked any more
		must(t, src.Start())
		m.wantPages("after Stop and Start", m.collect(src), nil)
		m.write(c, before)
		m.wantPages("started again", m.collect(src), before)
		must(t, src.Stop())
	})
}

// More pages than a ring holds: what the vCPU itself drained is reported too.
func TestDirtyRingFull(t *testing.T) {
	sources(t, func(t *testing.T, o VMOptions) {
		m := newStorer(t, o)
		src := m.vm.DirtySource(m.mem)
		must(t, src.Start())
		want := pages(dataAddr, lowPages-dataAddr/memory.PageSize)
		for range 2 {
			full := m.write(m.cpus[0], want)
			t.Logf("%d pages written, ring full %d times", len(want), full)
			if o.DirtyRingBytesPerVCPU != 0 && full == 0 {
				t.Error("the ring was never full")
			}
			m.wantPages("all", m.collect(src), want)
		}
	})
}

// A vCPU writes while another thread collects: each page is reported in the end.
func TestCollectWhileRunning(t *testing.T) {
	sources(t, func(t *testing.T, o VMOptions) {
		m := newStorer(t, o)
		c := m.cpus[0]
		src := m.vm.DirtySource(m.mem)
		must(t, src.Start())
		want := pages(dataAddr, 300)
		got := m.mem.NewPageSet()
		stop, stopped := make(chan struct{}), make(chan error)
		go func() {
			for {
				select {
				case <-stop:
					stopped <- src.Collect(got)
					return
				default:
				}
				if err := src.Collect(got); err != nil {
					stopped <- err
					return
				}
			}
		}()
		for range 20 {
			m.write(c, want)
		}
		close(stop)
		must(t, <-stopped)
		for _, gpa := range want {
			if !got.Has(gpa) {
				t.Fatalf("page %#x was never reported", gpa)
			}
		}
		got.Range(func(gpa memory.GPA) bool {
			if !isPageTable(gpa) && !slices.Contains(want, gpa) {
				t.Errorf("page %#x was reported and not written", gpa)
			}
			return true
		})
	})
}

// A look leaves everything dirty, for a guest that runs on after all; what it writes then is
// reported too, whether its page was armed or not.
func TestPeek(t *testing.T) {
	sources(t, func(t *testing.T, o VMOptions) {
		m := newStorer(t, o)
		c := m.cpus[0]
		src := m.vm.DirtySource(m.mem)
		if err := src.(memory.Peeker).Peek(m.mem.NewPageSet()); err == nil {
			t.Error("Peek of a source that was not started succeeded")
		}
		must(t, src.Start())
		peek := func() []memory.GPA {
			set := m.mem.NewPageSet()
			must(t, src.(memory.Peeker).Peek(set))
			return slices.DeleteFunc(list(set), isPageTable)
		}
		want := pages(dataAddr, 200)
		m.write(c, want)
		m.wantPages("first look", peek(), want)
		m.wantPages("second look", peek(), want)
		more := pages(dataAddr, 500) // a small ring is full meanwhile
		m.write(c, more)
		m.wantPages("look again", peek(), more)
		m.wantPages("collected", m.collect(src), more)
		m.wantPages("after that", m.collect(src), nil)
		m.write(c, want)
		m.wantPages("armed again", m.collect(src), want)
		m.write(c, want)
		peek()
		must(t, src.Stop())
		must(t, src.Start())
		m.wantPages("started again", m.collect(src), nil)
		m.write(c, want)
		m.wantPages("armed by the start", m.collect(src), want)
	})
}

func list(set *memory.PageSet) (pages []memory.GPA) {
	set.Range(func(gpa memory.GPA) bool {
		pages = append(pages, gpa)
		return true
	})
	return pages
}

func TestDirtyRingSizes(t *testing.T) {
	sys := openKVM(t)
	most := sys.capability(capDirtyLogRingAcqRel)
	if most == 0 {
		t.Skip("needs KVM_CAP_DIRTY_LOG_RING_ACQ_REL")
	}
	for _, bad := range []uint32{1, 2048, 3 * 4096, uint32(most) * 2} {
		if vm, err := sys.CreateVM(VMOptions{DirtyRingBytesPerVCPU: bad}); err == nil {
			t.Errorf("a ring of %d bytes was accepted", bad)
			must(t, vm.Close())
		}
	}
	vm, err := sys.CreateVM(VMOptions{DirtyRingBytesPerVCPU: uint32(most)})
	must(t, err)
	must(t, vm.Close())
}

func TestDirtySourceMisuse(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	set := m.mem.NewPageSet()
	if err := m.vm.DirtySource(m.mem).Collect(set); err == nil {
		t.Error("Collect of a log that was not started succeeded")
	}
	if err := m.cpus[0].HarvestRing(); !errors.Is(err, ErrNoRing) {
		t.Errorf("HarvestRing without a ring: %v", err)
	}
	if err := m.vm.MapMemory(m.mem); err == nil {
		t.Error("memory was mapped twice")
	}
}

// After the VMM itself has changed a page table, RemapMemory makes the guest see it.
func TestRemapMemory(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	const (
		window = 0x4000_0000 // mapped by pdpt entry 1, which the test adds
		pdAddr = 0x5000
		ptAddr = 0x6000
		first  = 0x20000
		second = 0x30000
		table  = 0x67
	)
	m.load(cat(
		[]byte{0xbb, 0x00, 0x00, 0x00, 0x40}, // mov $0x40000000,%ebx
		movEDX(donePort),
		[]byte{0x8b, 0x03}, // 1: mov (%rbx),%eax
		[]byte{0xef},       // out %eax,%dx
		[]byte{0xeb, 0xfb}, // jmp 1b
	))
	for at, value := range map[memory.GPA]uint64{
		pdptAddr + 8: pdAddr | table, pdAddr: ptAddr | table, ptAddr: first | table, first: 0x111, second: 0x222,
	} {
		must(t, m.mem.StoreUint64(at, value))
	}
	m.enter(c, 3)
	want := func(value uint32) {
		t.Helper()
		if got := binary.LittleEndian.Uint32(m.expect(c, donePort).IO.Data); got != value {
			t.Errorf("the guest read %#x, want %#x", got, value)
		}
	}
	want(0x111)
	must(t, m.mem.StoreUint64(ptAddr, second|table))
	must(t, m.vm.RemapMemory())
	want(0x222)
}

// A reset remaps memory while a migration collects: a slot that is missing for a moment
// must not fail the collection.
func TestCollectDuringRemap(t *testing.T) {
	sources(t, func(t *testing.T, o VMOptions) {
		m := newStorer(t, o)
		src := m.vm.DirtySource(m.mem)
		must(t, src.Start())
		remapped := make(chan error, 1)
		go func() {
			var err error
			for range 300 {
				err = errors.Join(err, m.vm.RemapMemory())
			}
			remapped <- err
		}()
		for collecting := true; collecting; {
			select {
			case err := <-remapped:
				must(t, err)
				collecting = false
			default:
			}
			must(t, src.Collect(m.mem.NewPageSet()))
		}
		must(t, src.Stop())
	})
}

package vmm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
)

// checkpoint is a state with its memory.
type checkpoint struct {
	sealed []byte
	mem    *memory.Guest
}

func takeCheckpoint(t *testing.T, m *Machine) checkpoint {
	t.Helper()
	sealed, err := m.Save(true)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := memory.New(m.Memory().Regions(), memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	copyMemory(t, mem, m.Memory())
	return checkpoint{sealed, mem}
}

// rewind brings a paused machine back to where the checkpoint was taken.
func (c checkpoint) rewind(t *testing.T, m *Machine) {
	t.Helper()
	touched, err := m.Memory().DataPages()
	if err != nil {
		t.Fatal(err)
	}
	copyPages(t, m.Memory(), c.mem, touched)
	if resume, err := m.Restore(c.sealed); err != nil || !resume {
		t.Fatal(resume, err)
	}
}

// TestRewind: a guest goes back to where it was, again and again, and forward from there. Its own
// checker looks at all of its memory.
func TestRewind(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			m, _ := dirtyMachine(t, cpus, "pages=256 lines=8 rate=0", false)
			saved := check(t, m)
			c := takeCheckpoint(t, m)
			for range 5 {
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
				awaitSteps(t, m, saved+1000)
				check(t, m)
				c.rewind(t, m)
				if now := check(t, m); now != saved {
					t.Fatalf("at step %d after going back to %d", now, saved)
				}
			}
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
			awaitSteps(t, m, saved)
			check(t, m)
		})
	}
}

// TestRewindPageTables: the guest has changed a page table since and used it, which KVM remembers.
func TestRewindPageTables(t *testing.T) {
	const orders, said, window, table, here, there = 0x20000, 0x20008, 0x4000_0000, 0x6000, 0x30000, 0x31000
	m := newProgram(t, []byte{
		0xbe, 0x00, 0x00, 0x02, 0x00, // mov $orders,%esi
		0x8b, 0x06, // 1: mov (%rsi),%eax
		0x83, 0xf8, 0x01, 0x74, 0x07, // cmp $1,%eax; je 2f
		0x83, 0xf8, 0x02, 0x75, 0xf4, 0xeb, 0x0b, // cmp $2,%eax; jne 1b; jmp 3f
		0xc7, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0x67, 0x10, 0x03, 0x00, // 2: movl $there|0x67,table
		0xbf, 0x00, 0x00, 0x00, 0x40, 0x8a, 0x07, // 3: mov $window,%edi; mov (%rdi),%al
		0x88, 0x46, 0x08, 0xeb, 0xfe, // mov %al,said; 4: jmp 4b
	})
	if err := m.vm.SetAccess(nil, nil); err != nil {
		t.Fatal(err)
	}
	store := func(at memory.GPA, value uint64) {
		t.Helper()
		if err := m.mem.StoreUint64(at, value); err != nil {
			t.Fatal(err)
		}
	}
	// The window is the second GiB: its table has one entry.
	for at, value := range map[memory.GPA]uint64{0x2008: 0x5067, 0x5000: table | 0x67, table: here | 0x67, here: 'h', there: 't'} {
		store(at, value)
	}
	hears := func(want byte) {
		t.Helper()
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := m.mem.LoadUint8(said)
			if err != nil {
				t.Fatal(err)
			}
			if got == want {
				break
			}
			if got != 0 {
				t.Fatalf("the guest reads %q through its window, want %q", got, want)
			}
		}
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	c := takeCheckpoint(t, m)
	for range 3 {
		store(orders, 1)
		hears('t')
		c.rewind(t, m)
		store(orders, 2)
		hears('h')
		c.rewind(t, m)
	}
}

// TestRewindForgets: what the guest did since then has not happened, so it says it again; a context
// that was armed before sees the VMM's stores as it does others.
func TestRewindForgets(t *testing.T) {
	m, out, model, where := linesMachine(t, 1, "")
	seen := tracked(t, m, track.Diff, where)
	playRound(t, m, out, model, 1)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	c := takeCheckpoint(t, m)
	before := len(out.String())
	play := func() {
		t.Helper()
		if err := errors.Join(m.Resume(), m.Feed(t.Context(), []byte("g"))); err != nil {
			t.Fatal(err)
		}
		waitFor(t, out, before, "lines round=2 ")
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	play()
	if _, err := seen.Harvest(0, func(track.Page) {}); err != nil {
		t.Fatal(err)
	}
	c.rewind(t, m)
	if err := model.Check(m.Memory()); err != nil {
		t.Error(err)
	}
	changed := 0
	if _, err := seen.Harvest(0, func(track.Page) { changed++ }); err != nil || changed == 0 {
		t.Errorf("a context that was armed before saw %d pages go back (%v)", changed, err)
	}
	before = len(out.String())
	play()
	model.Round()
	if err := model.Check(m.Memory()); err != nil {
		t.Error(err)
	}
}

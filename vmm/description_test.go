package vmm

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/kvm/jsonlist"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// reseal changes the description of a machine.
func reseal(t *testing.T, m *Machine, change func(*description)) []byte {
	t.Helper()
	sealed, err := m.Description()
	if err != nil {
		t.Fatal(err)
	}
	var d description
	if err := open(sealed, &d); err != nil {
		t.Fatal(err)
	}
	change(&d)
	if sealed, err = seal(&d); err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestDescriptionRefusals: what would fail at Restore is refused before a pause, and in
// few words whatever the peer says.
func TestDescriptionRefusals(t *testing.T) {
	m := newMachine(t, Config{Boot: BootFiles{Kernel: "builtin:hello"}})
	long := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name   string
		change func(*description)
		want   error
	}{
		{"TSC of a frequency that KVM does not reach", func(d *description) { d.TSCKHz = 1 << 50 }, kvm.ErrTSCFrequency},
		{"MSR that is not here", func(d *description) { d.MSRs = append(d.MSRs, 0xdead) }, ErrIncompatible},
		{"larger XSAVE area", func(d *description) { d.XSaveBytes += 64 }, ErrIncompatible},
		{"long name of KVM", func(d *description) { d.KVM = long }, ErrIncompatible},
		{"long name of a device", func(d *description) { d.Devices[0] = long }, ErrIncompatible},
		{"long CPU model", func(d *description) { d.CPUModel = CPUModel(long) }, ErrConfig},
		{"long path", func(d *description) { d.Boot.Initrd = long }, ErrConfig},
		{"many devices", func(d *description) { d.Devices = make(nameList, 1<<20) }, ErrCorrupt},
		{"many regions", func(d *description) { d.Regions = make(regionList, 1<<10) }, ErrCorrupt},
		{"many CPUID leaves", func(d *description) { d.CPUID = make(kvm.CPUIDEntries, 1<<10) }, ErrCorrupt},
		{"many MSRs", func(d *description) { d.MSRs = make(indexList, 1<<20) }, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clone, err := NewFromDescription(reseal(t, m, tt.change), Config{})
			if err == nil {
				t.Fatal("accepted", clone.Close())
			}
			if !errors.Is(err, tt.want) || len(err.Error()) > 1000 {
				t.Errorf("%.500v (%d bytes), want %v", err, len(err.Error()), tt.want)
			}
		})
	}
	refused := errors.New("not this one")
	if _, err := NewFromDescription(reseal(t, m, func(*description) {}), Config{Accept: func(c Config) error {
		if c.CPUs != 1 || c.MemoryBytes != 64<<20 {
			t.Errorf("asked about %+v", c)
		}
		return refused
	}}); !errors.Is(err, refused) || !errors.Is(err, ErrIncompatible) {
		t.Error(err)
	}
}

// TestPowerOnSavedEarly: a destination has no time for it when the state arrives.
func TestPowerOnSavedEarly(t *testing.T) {
	m := newMachine(t, Config{Boot: BootFiles{Kernel: "builtin:hello"}})
	clone, err := NewFromDescription(reseal(t, m, func(*description) {}), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer clone.Close()
	if clone.powerOn == nil || clone.powerOn.vcpus[0].TSC.KHz != m.powerOn.vcpus[0].TSC.KHz {
		t.Error("no power-on state of the guest's frequency before a restore")
	}
}

func TestDescriptionListsStop(t *testing.T) {
	for name, many := range map[string]string{
		"cpuid": strings.Repeat("{},", 1<<20) + "{}",
		"msrs":  strings.Repeat("1,", 1<<20) + "1",
	} {
		var d description
		if err := json.Unmarshal([]byte(`{"`+name+`":[`+many+`]}`), &d); !errors.Is(err, jsonlist.ErrTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryDeviceIsSaved: whatever device of the board has a State is in the one list.
func TestEveryDeviceIsSaved(t *testing.T) {
	var want []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[board]()) {
		if _, saved := f.Type.MethodByName("State"); saved {
			want = append(want, strings.ToLower(f.Name))
		}
	}
	if got := deviceNames(); !reflect.DeepEqual(got, want) {
		t.Errorf("saved %v, on the board %v", got, want)
	}
}

// TestBootDigests: at a destination a reset loads what the source had and nothing else,
// since a peer chooses the paths.
func TestBootDigests(t *testing.T) {
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	write := func(text string) {
		if err := os.WriteFile(initrd, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := BootFiles{Kernel: "builtin:hello", Initrd: initrd}
	write("what it was")
	check := func(d bootDigests, limitBytes uint64) error {
		src, err := files.open()
		if err != nil {
			t.Fatal(err)
		}
		defer src.close()
		return d.check(src, limitBytes)
	}
	was := files.digests()
	if err := check(was, 1<<20); err != nil {
		t.Error(err)
	}
	if err := check(was, 4); !errors.Is(err, errBootChanged) {
		t.Errorf("a file larger than memory: %v", err)
	}
	if err := check(bootDigests{Kernel: was.Kernel}, 1<<20); !errors.Is(err, errBootChanged) {
		t.Errorf("no digest: %v", err)
	}
	if err := check(bootDigests{Kernel: was.Initrd, Initrd: was.Initrd}, 1<<20); !errors.Is(err, errBootChanged) {
		t.Errorf("another kernel: %v", err)
	}
	write("what it is.")
	if err := check(was, 1<<20); !errors.Is(err, errBootChanged) {
		t.Errorf("another initrd: %v", err)
	}
	if err := os.Remove(initrd); err != nil {
		t.Fatal(err)
	}
	if d := files.digests(); d.Kernel != nil || d.Initrd != nil {
		t.Errorf("digests without a file: %v", d)
	}
}

// TestResetAtDestinationChecksFiles moves a guest that resets, with its kernel replaced.
func TestResetAtDestinationChecksFiles(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		kernel := vmmtest.RawKernel(t, countBoots)
		m := newMachine(t, Config{Boot: BootFiles{Kernel: kernel}})
		clone := cloneMachine(t, m)
		if replaced {
			image, err := os.ReadFile(kernel)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(kernel, append(image, 0x90), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := clone.Resume(); err != nil {
			t.Fatal(err)
		}
		o := awaitEnd(t, clone)
		if !replaced && o.Kind != EndedByPowerOff || replaced && !errors.Is(o.Err, errBootChanged) {
			t.Errorf("replaced %v: outcome %+v", replaced, o)
		}
	}
}

// TestKernelIsAFIFO: nobody may wait for the writer of a file that a peer names.
func TestKernelIsAFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (BootFiles{Kernel: path}).open(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

func TestOpenQuotesLittle(t *testing.T) {
	content := bytes.Join([][]byte{[]byte(`{"`), bytes.Repeat([]byte("x"), 1<<20), []byte(`":1}`)}, nil)
	sealed, err := seal(json.RawMessage(content))
	if err != nil {
		t.Fatal(err)
	}
	var d description
	if err := open(sealed, &d); !errors.Is(err, ErrCorrupt) || len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

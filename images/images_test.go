package images_test

import (
	"bytes"
	"debug/elf"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/images"
)

func TestBuiltin(t *testing.T) {
	if got, want := images.Names(), []string{"dirty", "hello", "lines"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if _, ok := images.Builtin("nobody"); ok {
		t.Error("there is a guest called nobody")
	}
	for _, name := range images.Names() {
		data, ok := images.Builtin(name)
		if !ok {
			t.Fatalf("%s: listed but missing", name)
		}
		if len(data) >= 64<<10 {
			t.Errorf("%s: %d bytes", name, len(data))
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if f.Section(".note.Xen") == nil || f.Section(".note.gnu.build-id") != nil || f.Section(".comment") != nil {
			t.Errorf("%s: has no PVH note, or has a build id or the compiler's name", name)
		}
	}
}

// The committed files are what the sources give, byte for byte.
func TestRebuild(t *testing.T) {
	version, err := exec.Command("gcc", "-dumpfullversion").Output()
	if err != nil || !strings.HasPrefix(string(version), "12.2.") {
		t.Skipf("the committed files are built by Debian 12's gcc 12.2; here: %q, error %v", version, err)
	}
	if _, err := exec.LookPath("make"); err != nil {
		t.Skipf("no make: %v", err)
	}
	if out, err := exec.Command("make", "check").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

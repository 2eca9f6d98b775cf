package linux

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDependencies(t *testing.T) {
	const answer = "redis-tools\n  PreDepends: x\n  Depends: adduser\n  Depends: libatomic1\n |Depends: liba\n  Depends: <virtual>\n    libelogind0\n  Breaks: redis-server\n"
	if diff := cmp.Diff([]string{"adduser", "libatomic1"}, parseAllDepends(answer)); diff != "" {
		t.Error(diff)
	}
}

// TestLinksStayInside: an absolute link of a package is one of its own root.
func TestLinksStayInside(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"usr/lib/x86_64-linux-gnu", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	library := filepath.Join(root, "usr/lib/x86_64-linux-gnu/libx.so.1.2")
	if err := os.WriteFile(library, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"usr/lib/x86_64-linux-gnu/libx.so.1": "libx.so.1.2",
		"etc/absolute":                       "/usr/lib/x86_64-linux-gnu/libx.so.1",
		"etc/out":                            "../../../../etc/passwd",
		"etc/loop":                           "loop",
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findLibrary(root, "libx.so.1"); err != nil || got != library {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := within(root, "etc/absolute"); err != nil || got != library {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"etc/out", "etc/loop", "none"} {
		if got, err := within(root, bad); err == nil {
			t.Errorf("%s is %q", bad, got)
		}
	}
}

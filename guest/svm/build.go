package svm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fineline-vmm/fineline/images/linux"
)

// testBinary is one package's compiled tests.
type testBinary struct {
	pkg  string // import path
	dir  string // source directory here
	path string // the binary here
}

// dirInside is the working directory of the tests, as under go test: the
// package's own directory.
func (t testBinary) dirInside() string { return path.Join("/src", t.pkg) }

// inside is the binary's path in the machine.
func (t testBinary) inside() string { return path.Join("/tests", filepath.Base(t.path)) }

func (t testBinary) addTo(tree *linux.Tree) {
	tree.File(t.inside(), t.path, 0o755)
	tree.Dir(t.dirInside())
	data := filepath.Join(t.dir, "testdata")
	if _, err := os.Stat(data); err == nil {
		tree.Copy(path.Join(t.dirInside(), "testdata"), data)
	}
}

// buildTests compiles the tests of all packages that have any, into dir.
func buildTests(ctx context.Context, dir string, patterns []string) ([]testBinary, error) {
	packages, err := listPackages(ctx, patterns)
	if err != nil {
		return nil, err
	}
	var tests []testBinary
	for i, p := range packages {
		t := testBinary{pkg: p.ImportPath, dir: p.Dir, path: filepath.Join(dir, strconv.Itoa(i)+"-"+path.Base(p.ImportPath)+".test")}
		// No debug data: the kernel copies all of it when it unpacks the image.
		if _, err := goTool(ctx, "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", t.path, t.pkg); err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	return tests, nil
}

// goPackage is what we need of `go list -json`.
type goPackage struct {
	ImportPath   string
	Dir          string
	TestGoFiles  []string
	XTestGoFiles []string
}

func listPackages(ctx context.Context, patterns []string) ([]goPackage, error) {
	args := append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles", "--"}, patterns...)
	out, err := goTool(ctx, args...)
	if err != nil {
		return nil, err
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			packages = append(packages, p)
		}
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("no tests in %s", strings.Join(patterns, " "))
	}
	return packages, nil
}

// goTool runs the go command for the machine's architecture, without cgo: the
// machine has no shared libraries.
func goTool(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.Bytes(), nil
}

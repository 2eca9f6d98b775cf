// Package fineline_test checks the rules of the house that a machine can check.
package fineline_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "github.com/fineline-vmm/fineline"
	maxLines = 600
)

// layers says which of our own packages a package may import, tests excepted: a prefix names a
// package and all below it, and the longest prefix that fits holds. The house's dependencies
// point one way: cmd -> vmm, migration -> devices -> coherence -> memory.
var layers = map[string][]string{
	"cmd":        {"cmd", "vmm", "migration", "devices", "coherence", "memory", "images", "guest"},
	"vmm":        {"vmm", "devices", "coherence", "memory", "images"}, // images: the built-in guests
	"vmm/kvm":    {"vmm/kvm", "memory"},
	"vmm/boot":   {"vmm/boot", "memory"},
	"vmm/vector": {"vmm/vector", "vmm/kvm", "memory"},
	"vmm/acpi":   {"vmm/acpi", "devices", "memory"}, // devices: the ports that tables name
	"vmm/api":    {"vmm/api", "devices/socket"},
	"migration":  {"migration", "devices", "coherence", "memory"},
	"devices":    {"devices", "coherence", "memory"},
	"coherence":  {"coherence", "memory"},
	"memory":     {"memory"},
	"docs":       {},
	"guest":      {"guest", "images"},
	"images":     {"images", "memory"}, // memory: what checks a guest from outside reads it
}

// goFile is a parsed Go file of the module.
type goFile struct {
	path   string // slash-separated, from the module's root
	pkg    string // its directory
	test   bool
	syntax *ast.File
}

func (f *goFile) unsafeName() bool {
	name := strings.TrimSuffix(strings.TrimSuffix(f.path, ".go"), "_test")
	return strings.HasSuffix(name, "_unsafe")
}

func (f *goFile) imports() []string {
	var all []string
	for _, i := range f.syntax.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		all = append(all, p)
	}
	return all
}

var fileSet = token.NewFileSet()

// walk calls visit with every file of the tree, leaving out what is built or hidden.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p == ".git" || p == "bin" || p == "build" || p == "images/obj" {
				return fs.SkipDir
			}
			return nil
		}
		visit(filepath.ToSlash(p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func goFiles(t *testing.T) []*goFile {
	t.Helper()
	var files []*goFile
	walk(t, func(p string) {
		if !strings.HasSuffix(p, ".go") || strings.Contains(p, "/testdata/") {
			return
		}
		syntax, err := parser.ParseFile(fileSet, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		files = append(files, &goFile{path: p, pkg: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), syntax: syntax})
	})
	return files
}

// selectors calls visit with each X.Sel of the file where X is an import's name.
func (f *goFile) selectors(visit func(pkg, name string, at token.Position)) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				visit(x.Name, s.Sel.Name, fileSet.Position(s.Pos()))
			}
		}
		return true
	})
}

func TestUnsafeFence(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, i := range f.imports() {
			if i == "C" {
				t.Errorf("%s: cgo", f.path)
			}
			if i == "unsafe" && !f.unsafeName() {
				t.Errorf("%s: unsafe belongs in *_unsafe.go", f.path)
			}
		}
		f.selectors(func(pkg, name string, at token.Position) {
			if (pkg == "unix" || pkg == "syscall") && name == "SYS_IOCTL" && !f.unsafeName() {
				t.Errorf("%s: ioctl belongs in *_unsafe.go", at)
			}
		})
	}
}

// TestForeignLanguages: beside Go files there is no other compiled language than Go's assembly.
func TestForeignLanguages(t *testing.T) {
	goDirs := map[string]bool{}
	for _, f := range goFiles(t) {
		goDirs[f.pkg] = true
	}
	walk(t, func(p string) {
		switch path.Ext(p) {
		case ".c", ".cc", ".cpp", ".h", ".S", ".syso", ".a", ".o":
			if goDirs[path.Dir(p)] {
				t.Errorf("%s: in a Go package assembly is *.s and there is nothing else", p)
			}
		}
	})
}

func TestDependenciesPointOneWay(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.pkg == "." {
			continue
		}
		allowed, ok := layerOf(f.pkg)
		if !ok {
			t.Errorf("%s: no layer in rules_test.go for this package", f.path)
			continue
		}
		for _, i := range f.imports() {
			if i == "github.com/bobuhiro11/gokvm/kvm" && !within(f.pkg, "vmm/kvm") {
				t.Errorf("%s: KVM's structs stay in vmm/kvm", f.path)
			}
			own, ok := strings.CutPrefix(i, module+"/")
			if !ok {
				continue
			}
			if within(own, "cmd") && !within(f.pkg, "cmd") {
				t.Errorf("%s: nobody imports %s", f.path, own)
			}
			if !f.test && !slices.ContainsFunc(allowed, func(a string) bool { return within(own, a) }) {
				t.Errorf("%s: %s may not import %s", f.path, f.pkg, own)
			}
		}
	}
}

func layerOf(pkg string) ([]string, bool) {
	for p := pkg; p != "."; p = path.Dir(p) {
		if allowed, ok := layers[p]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func within(pkg, prefix string) bool { return pkg == prefix || strings.HasPrefix(pkg, prefix+"/") }

// TestKernelStructSizes: a struct in an *_unsafe.go file of vmm/kvm or memory that has only
// fields of fixed size (as kernel structs do, and hardly anything else) must be named in a
// compile-time check, a package-level declaration of _ with unsafe.Sizeof of it.
func TestKernelStructSizes(t *testing.T) {
	structs := map[string]map[string]string{} // package, type, position
	checked := map[string]map[string]bool{}   // package, type
	for _, f := range goFiles(t) {
		if f.test || !f.unsafeName() || !(within(f.pkg, "vmm/kvm") || within(f.pkg, "memory")) {
			continue
		}
		if structs[f.pkg] == nil {
			structs[f.pkg], checked[f.pkg] = map[string]string{}, map[string]bool{}
		}
		for _, d := range f.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if st, ok := s.Type.(*ast.StructType); ok && s.TypeParams == nil && mirrorsKernel(st) {
						structs[f.pkg][s.Name.Name] = fileSet.Position(s.Pos()).String()
					}
				case *ast.ValueSpec:
					if s.Names[0].Name == "_" {
						collectSizeofs(s, checked[f.pkg])
					}
				}
			}
		}
	}
	for pkg, types := range structs {
		for name, at := range types {
			if !checked[pkg][name] {
				t.Errorf("%s: struct %s has no compile-time size check (var _ = ... unsafe.Sizeof(%s{}))", at, name, name)
			}
		}
	}
}

// mirrorsKernel says whether all fields have a fixed size by their spelling: sized integers,
// arrays of them, and named or nested structs (which are judged where they are declared).
func mirrorsKernel(s *ast.StructType) bool {
	if len(s.Fields.List) == 0 {
		return false
	}
	sized := false
	for _, field := range s.Fields.List {
		typ := field.Type
		for {
			array, ok := typ.(*ast.ArrayType)
			if !ok || array.Len == nil {
				break
			}
			typ = array.Elt
		}
		switch x := typ.(type) {
		case *ast.Ident:
			switch x.Name {
			case "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "byte":
				sized = true
			case "string", "bool", "int", "uint", "uintptr", "error", "any":
				return false
			}
		case *ast.StructType:
			if !mirrorsKernel(x) {
				return false
			}
		default:
			return false
		}
	}
	return sized
}

func collectSizeofs(n ast.Node, into map[string]bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		if fun, ok := call.Fun.(*ast.SelectorExpr); !ok || fun.Sel.Name != "Sizeof" {
			return true
		}
		if lit, ok := call.Args[0].(*ast.CompositeLit); ok {
			if name, ok := lit.Type.(*ast.Ident); ok {
				into[name.Name] = true
			}
		}
		return true
	})
}

func TestLibrariesDoNotPrint(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.syntax.Name.Name == "main" || f.test {
			continue
		}
		f.selectors(func(pkg, name string, at token.Position) {
			if pkg == "fmt" && (name == "Print" || name == "Printf" || name == "Println") {
				t.Errorf("%s: fmt.%s in a library", at, name)
			}
			if pkg == "os" && name == "Exit" {
				t.Errorf("%s: os.Exit in a library", at)
			}
		})
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.test {
			continue
		}
		f.selectors(func(pkg, name string, at token.Position) {
			if pkg == "time" && name == "Sleep" {
				t.Errorf("%s: wait for the event, not for time to pass", at)
			}
		})
	}
}

func TestEveryLibraryHasADoc(t *testing.T) {
	has, needs := map[string]bool{}, map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test || f.syntax.Name.Name == "main" {
			continue
		}
		needs[f.pkg] = true
		has[f.pkg] = has[f.pkg] || path.Base(f.path) == "doc.go" && f.syntax.Doc != nil
	}
	for pkg := range needs {
		if !has[pkg] {
			t.Errorf("%s: no doc.go with a package comment", pkg)
		}
	}
}

// TestTexts reads every text file: none is too long to be read at one sitting, none names a
// place that only one machine has.
func TestTexts(t *testing.T) {
	places := []string{"/" + "work/", "/" + "root/"}
	walk(t, func(p string) {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Error(err)
			return
		}
		if bytes.IndexByte(data, 0) >= 0 {
			return // not a text
		}
		switch path.Ext(p) {
		case ".go", ".s", ".S", ".c", ".h", ".sh":
			if n := bytes.Count(data, []byte("\n")); n > maxLines {
				t.Errorf("%s: %d lines, more than %d: split it", p, n, maxLines)
			}
		}
		for i, line := range strings.Split(string(data), "\n") {
			for _, place := range places {
				if namesPlace(line, place) {
					t.Errorf("%s:%d: names %s, a path of one machine", p, i+1, place)
				}
			}
		}
	})
}

// namesPlace says whether line has place at the beginning of a path, not within one.
func namesPlace(line, place string) bool {
	for rest := line; ; {
		at := strings.Index(rest, place)
		if at < 0 {
			return false
		}
		if at == 0 || !strings.ContainsAny(rest[at-1:at], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-}~*") {
			return true
		}
		rest = rest[at+len(place):]
	}
}

// TestRulesBite feeds the judges above what they must find: a rule that can't fail is none.
func TestRulesBite(t *testing.T) {
	const source = `package p
type kernel struct { a uint32; b [4]struct{ c uint64 }; d other }
type ours struct { a uint32; m map[int]int }
type empty struct{}
var _ [8]byte = [unsafe.Sizeof(kernel{})]byte{}
`
	file, err := parser.ParseFile(fileSet, "source.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	mirrors, sizes := map[string]bool{}, map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.TypeSpec); ok {
			mirrors[s.Name.Name] = mirrorsKernel(s.Type.(*ast.StructType))
		}
		return true
	})
	collectSizeofs(file, sizes)
	if !mirrors["kernel"] || mirrors["ours"] || mirrors["empty"] || !sizes["kernel"] || len(sizes) != 1 {
		t.Errorf("structs %v, sizes %v", mirrors, sizes)
	}
	for line, want := range map[string]bool{
		"cd /x/y": true, "/x/": true, `"/x/y"`: true, "a/x/y": false, "$HOME/x/y": false, "images/x/y, then /x/y": true,
	} {
		if namesPlace(line, "/x/") != want {
			t.Errorf("%q: want %v", line, want)
		}
	}
	if l, _ := layerOf("vmm/kvm/deep"); !slices.Equal(l, layers["vmm/kvm"]) {
		t.Errorf("layer of vmm/kvm/deep: %v", l)
	}
	if _, ok := layerOf("elsewhere"); ok {
		t.Error("a package outside the house has a layer")
	}
	if (&goFile{path: "a/b.go"}).unsafeName() || !(&goFile{path: "a/b_unsafe_test.go"}).unsafeName() {
		t.Error("unsafe names")
	}
}

// Package docs_test keeps README and docs/ true and whole: every command and flag of fineline that they name exists,
// every relative link and anchor resolves, and so does every make target; and every flag, and every field of the JSON that
// users read and write, is named. The binary's own --help and the declarations are the source, since they cannot be out of date.
package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = ".."

var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fineline-docs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "fineline")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/fineline").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build fineline: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// page is one Markdown file: path, whole text, text outside of code, and its code, one command a string; terms is the
// code within the prose.
type page struct {
	path, text, prose string
	code, terms       []string
}

var (
	fence  = regexp.MustCompile("(?ms)^```.*?\n(.*?)^```")
	inline = regexp.MustCompile("`([^`\n]+)`")
)

func pages(t *testing.T) []page {
	t.Helper()
	paths, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []page
	for _, path := range append(paths, filepath.Join(root, "README.md")) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := page{path: path, text: string(data)}
		for _, m := range fence.FindAllStringSubmatch(p.text, -1) {
			block := strings.ReplaceAll(m[1], "\\\n", " ")
			p.code = append(p.code, strings.Split(block, "\n")...)
		}
		p.prose = fence.ReplaceAllString(p.text, "")
		for _, m := range inline.FindAllStringSubmatch(p.prose, -1) {
			p.terms = append(p.terms, m[1])
		}
		p.code = append(p.code, p.terms...)
		p.prose = inline.ReplaceAllString(p.prose, "")
		out = append(out, p)
	}
	if len(out) < 2 {
		t.Fatalf("found only %d pages", len(out))
	}
	return out
}

// command is what --help says of one subcommand.
type command struct {
	flags []string
	subs  map[string]*command
}

var (
	helpCommand = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*)(?:  .*)?$`)
	helpFlag    = regexp.MustCompile(`(?m)^\s+(?:-[a-z], )?(--[a-z][a-z-]*)`)
)

func help(t *testing.T, args ...string) *command {
	t.Helper()
	out, err := exec.Command(binary, append(args, "--help")...).Output()
	if err != nil {
		t.Fatalf("fineline %v --help: %v", args, err)
	}
	c := &command{subs: map[string]*command{}}
	for _, m := range helpFlag.FindAllStringSubmatch(string(out), -1) {
		c.flags = append(c.flags, m[1])
	}
	_, list, ok := strings.Cut(string(out), "Available Commands:\n")
	if !ok {
		return c
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range helpCommand.FindAllStringSubmatch(list, -1) {
		if name := m[1]; name != "help" && name != "completion" {
			c.subs[name] = help(t, append(slices.Clone(args), name)...)
		}
	}
	return c
}

// hidden are flags that work and are documented, but that --help does not list.
var hidden = []string{"--api-sock"}

func (c *command) hasFlag(name string) bool {
	if slices.Contains(c.flags, name) || slices.Contains(hidden, name) {
		return true
	}
	for _, sub := range c.subs {
		if sub.hasFlag(name) {
			return true
		}
	}
	return false
}

var (
	// call finds fineline as a command: at the start, or after a prompt, a pipe, an assignment, or a quote.
	call = regexp.MustCompile(`(?:^|[\s'("])fineline((?: +[^\s|;&'")]+| +"[^"]*")*)`)
	word = regexp.MustCompile(`"[^"]*"|\S+`)
	flag = regexp.MustCompile(`^--[a-z][a-z-]*`)
)

func TestCommandsAndFlagsExist(t *testing.T) {
	top := help(t)
	if len(top.subs) < 5 {
		t.Fatalf("fineline --help shows only %d commands", len(top.subs))
	}
	found := 0
	for _, p := range pages(t) {
		for _, line := range p.code {
			if name := flag.FindString(line); name != "" && !top.hasFlag(name) {
				t.Errorf("%s: `%s`: no subcommand has the flag %s", p.path, line, name)
			}
			if strings.HasPrefix(line, "{") {
				continue // JSON that something printed
			}
			for _, m := range call.FindAllStringSubmatch(line, -1) {
				found++
				if err := checkCall(top, word.FindAllString(m[1], -1)); err != nil {
					t.Errorf("%s: `%s`: %v", p.path, line, err)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("found only %d calls of fineline in the pages: is the pattern still right?", found)
	}
}

// checkCall follows subcommands as long as there are some, then looks at flags.
func checkCall(c *command, words []string) error {
	for i, w := range words {
		name := flag.FindString(w)
		switch sub := c.subs[w]; {
		case sub != nil:
			c = sub
		case name != "" && !slices.Contains(c.flags, name) && !slices.Contains(hidden, name):
			return fmt.Errorf("no such flag here: %s", name)
		case name == "" && i == 0 && regexp.MustCompile(`^[a-z]+$`).MatchString(w):
			return fmt.Errorf("no such command: %s", w)
		}
	}
	return nil
}

// userJSON is where the JSON is declared that users read and write: files, and which of their types (none: all).
var userJSON = map[string][]string{
	"../migration/result.go":        nil,
	"../migration/progress.go":      nil,
	"../migration/wire/messages.go": {"Faults", "FaultBucket"},
	"../vmm/api/*.go":               nil,
	"../cmd/fineline/*.go":          nil,
}

var (
	anyFlag = regexp.MustCompile(`--[a-z][a-z-]*`)
	term    = regexp.MustCompile(`[A-Za-z0-9_-]+`)
)

// TestEverythingIsNamed: a sample of output does not explain a field, so that it is in one does not count.
func TestEverythingIsNamed(t *testing.T) {
	flags, terms := map[string]bool{}, map[string]bool{}
	for _, p := range pages(t) {
		for _, line := range p.code {
			for _, name := range anyFlag.FindAllString(line, -1) {
				flags[name] = true
			}
		}
		for _, text := range p.terms {
			for _, name := range term.FindAllString(text, -1) {
				terms[name] = true
			}
		}
	}
	help(t).eachFlag("fineline", func(command, name string) {
		if !flags[name] {
			t.Errorf("no page names %s of %s", name, command)
			flags[name] = true // once is enough: some are of all commands
		}
	})
	fields := 0
	for pattern, types := range userJSON {
		eachField(t, pattern, types, func(owner, name string) {
			fields++
			if !terms[name] {
				t.Errorf("no page names the field %q of %s", name, owner)
			}
		})
	}
	if fields < 100 {
		t.Errorf("found only %d fields: are they still where userJSON says?", fields)
	}
}

func (c *command) eachFlag(path string, visit func(command, name string)) {
	for _, name := range c.flags {
		visit(path, name)
	}
	for name, sub := range c.subs {
		sub.eachFlag(path+" "+name, visit)
	}
}

// eachField calls visit with the JSON name of each field of the types, or of all, in the files that are no tests.
func eachField(t *testing.T, pattern string, types []string, visit func(owner, name string)) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: no such files (%v)", pattern, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		owner := ""
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				owner = n.Name.Name
				return types == nil || slices.Contains(types, owner)
			case *ast.Field:
				if name := jsonName(n); name != "" {
					visit(path+": "+owner, name)
				}
			}
			return true
		})
	}
}

// jsonName is the name that the field's tag gives it in JSON, if any.
func jsonName(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	tag, _ := strconv.Unquote(f.Tag.Value) // the parser has checked it
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return strings.TrimPrefix(name, "-")
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchor is the fragment that GitHub makes of a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func TestLinksResolve(t *testing.T) {
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, fragment, _ := strings.Cut(m[1], "#")
			target := p.path
			if file != "" {
				target = filepath.Join(filepath.Dir(p.path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link %s: %v", p.path, m[1], err)
				continue
			}
			if fragment != "" && !slices.Contains(anchors(t, target), fragment) {
				t.Errorf("%s: link %s: no such heading", p.path, m[1])
			}
		}
	}
}

func anchors(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(string(data), ""), -1) {
		out = append(out, anchor(m[1]))
	}
	return out
}

var (
	makeCall = regexp.MustCompile(`(?:^|[\s$])make((?: +(?:-[a-zA-Z]+|[A-Z]+=\S+|-C +\S+|[a-z][a-z-]*))+)`)
	makeRule = regexp.MustCompile(`(?m)^([a-z][a-z -]*):(?:[^=]|$)`)
)

func TestMakeTargetsExist(t *testing.T) {
	found := 0
	for _, p := range pages(t) {
		for _, line := range p.code {
			line, _, _ = strings.Cut(line, " #")
			for _, m := range makeCall.FindAllStringSubmatch(line, -1) {
				dir := root
				words := strings.Fields(m[1])
				for i, w := range words {
					switch {
					case w == "-C":
						dir = filepath.Join(root, words[i+1])
					case i > 0 && words[i-1] == "-C", strings.HasPrefix(w, "-"), strings.Contains(w, "="):
					default:
						found++
						if !slices.Contains(targets(t, dir), w) {
							t.Errorf("%s: `%s`: %s has no target %s", p.path, line, filepath.Join(dir, "Makefile"), w)
						}
					}
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("found only %d make targets in the pages: is the pattern still right?", found)
	}
}

func targets(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range makeRule.FindAllStringSubmatch(string(data), -1) {
		out = append(out, strings.Fields(m[1])...)
	}
	return out
}

package options_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/logging"
	"github.com/pointsmanhq/pointsman/pkg/options"
)

// program is shaped as the router's.
type program struct {
	Serve  serve  `cmd:"" default:"withargs" help:"Carry clients to nodes (the default)."`
	Where  where  `cmd:"" help:"Tell which node serves a key."`
	Status status `cmd:"" help:"Show the table of owners."`
}

type serve struct {
	Listen  string             `default:":8080" placeholder:"ADDR" group:"Clients" help:"Address for clients."`
	Auth    string             `default:"none" enum:"none,jwt" group:"Clients" help:"Who may connect."`
	Signer  string             `default:"" enum:",rsa,ec" group:"Clients" help:"Kind of key that signs tokens."`
	Origins []string           `placeholder:"ORIGIN" group:"Clients" help:"Origins that browsers may come from."`
	Etcd    []string           `default:"127.0.0.1:2379" placeholder:"HOST:PORT" group:"etcd" help:"etcd's endpoints."`
	Topic   string             `required:"" group:"etcd" help:"Kafka topic."`
	Drain   time.Duration      `default:"30s" help:"How long an orderly stop may take."`
	Ring    options.Size       `default:"64MiB" help:"Bytes of recent records."`
	Compact bool               `default:"true" negatable:"" help:"Join writes."`
	Labels  map[string]string  `help:"Labels of this process."`
	Token   options.SecretFile `name:"link-token-file" placeholder:"FILE" help:"File with the token of links."`

	logging.Options `embed:""`

	warnings []string
	fail     error
}

func (s *serve) Validate() error {
	if s.Drain < 0 {
		return errors.New("--drain must not be negative")
	}
	return nil
}

func (s *serve) Run(_ context.Context, env options.Env) error {
	s.warnings = env.Warnings
	return s.fail
}

type where struct {
	Key  string   `arg:"" help:"Client key."`
	Etcd []string `default:"127.0.0.1:2379" help:"etcd's endpoints."`
	Wait bool     `help:"Wait until a node serves it."`
}

func (w *where) Run(_ context.Context, env options.Env) error {
	_, err := env.Stdout.Write([]byte(w.Key))
	return err
}

type status struct{}

func (*status) Run(context.Context, options.Env) error { return nil }

func router() options.Program {
	return options.Program{Name: "router", Summary: "Carries each WebSocket client to the node that owns its partition.", Version: "v1.2.3 go1.26"}
}

// run gives the exit code and what was printed.
func run(t *testing.T, into any, environ []string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = options.Run(t.Context(), router(), into, args, options.Env{Stdout: &stdout, Stderr: &stderr, Environ: environ})
	return code, stdout.String(), stderr.String()
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "router.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	file := writeFile(t, "topic: from-file\n")
	environ := []string{"POINTSMAN_TOPIC=from-env", "POINTSMAN_CONFIG=" + file, "PATH=/bin"}
	for _, tt := range []struct {
		name    string
		environ []string
		args    []string
		want    string
	}{
		{"flag", environ, []string{"--topic", "from-flag"}, "from-flag"},
		{"environment", environ, nil, "from-env"},
		{"environment of this program", append([]string{"POINTSMAN_ROUTER_TOPIC=from-own", "POINTSMAN_WSNODE_TOPIC=from-other"}, environ...), nil, "from-own"},
		{"environment of the other program", append([]string{"POINTSMAN_WSNODE_TOPIC=from-other"}, environ...), nil, "from-env"},
		{"file", nil, []string{"--config", file}, "from-file"},
		{"file named by this program's environment", []string{"POINTSMAN_CONFIG=/nowhere", "POINTSMAN_ROUTER_CONFIG=" + file}, nil, "from-file"},
		{"file named by environment", environ[1:], nil, "from-file"},
		{"empty variable counts as not set", []string{"POINTSMAN_TOPIC=", environ[1]}, nil, "from-file"},
		{"named command", environ, []string{"serve", "--topic=from-flag"}, "from-flag"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p program
			if code, _, errs := run(t, &p, tt.environ, tt.args...); code != 0 {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			if p.Serve.Topic != tt.want {
				t.Errorf("topic = %q, want %q", p.Serve.Topic, tt.want)
			}
			if p.Serve.Listen != ":8080" {
				t.Errorf("listen = %q, want the default", p.Serve.Listen)
			}
		})
	}
}

func TestFileAndEnvironmentHoldEveryKindOfValue(t *testing.T) {
	want := serve{
		Listen: "127.0.0.1:1", Auth: "jwt", Origins: []string{"a.example", "b,c.example"},
		Etcd: []string{"e1:2379", "e2:2379"}, Topic: "8080", Drain: 90 * time.Second, Ring: 3 << 29,
		Compact: false, Labels: map[string]string{"zone": "a", "rack": "7"}, Token: "/run/token",
		Options: logging.Options{LogLevel: "debug", LogFormat: "console"},
	}
	file := writeFile(t, `# a comment
listen: 127.0.0.1:1
auth: jwt
origins: [a.example, "b,c.example"]
etcd:
  - e1:2379
  - e2:2379
topic: 8080
drain: 1m30s
ring: 1.5GiB
compact: false
labels: {zone: a, rack: 7}
link-token-file: /run/token
log-level: debug
log-format: console
`)
	environ := []string{
		"POINTSMAN_LISTEN=127.0.0.1:1", "POINTSMAN_AUTH=jwt", `POINTSMAN_ORIGINS=a.example,b\,c.example`,
		"POINTSMAN_ETCD=e1:2379,e2:2379", "POINTSMAN_TOPIC=8080", "POINTSMAN_DRAIN=1m30s", "POINTSMAN_RING=1.5GiB",
		"POINTSMAN_COMPACT=false", "POINTSMAN_LABELS=zone=a;rack=7", "POINTSMAN_LINK_TOKEN_FILE=/run/token",
		"POINTSMAN_LOG_LEVEL=debug", "POINTSMAN_LOG_FORMAT=console",
	}
	for name, from := range map[string]struct {
		environ, args []string
	}{
		"file":        {nil, []string{"--config=" + file}},
		"environment": {environ, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var p program
			if code, _, errs := run(t, &p, from.environ, from.args...); code != 0 {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			if !reflect.DeepEqual(p.Serve, want) {
				t.Errorf("got  %+v\nwant %+v", p.Serve, want)
			}
		})
	}
}

func TestBadOptionIsOneLineAndExitCodeTwo(t *testing.T) {
	topic := "--topic=t"
	for _, tt := range []struct {
		name    string
		file    string
		environ []string
		args    []string
		want    string // FILE stands for the file's path
	}{
		{"unknown flag", "", nil, []string{topic, "--listne", ":1"}, `router: unknown flag --listne, did you mean "--listen"?`},
		{"unknown command", "", nil, []string{"wehre", "alice"}, `router: unexpected argument wehre`},
		{"missing flag", "", nil, nil, "router: --topic is needed (or POINTSMAN_TOPIC, or topic: in the --config file)"},
		{"missing argument", "", nil, []string{"where"}, `router: expected "<key>"`},
		{"bad value", "", nil, []string{topic, "--drain=soon"}, `router: --drain: expected duration but got "soon": time: invalid duration "soon"`},
		{"not one of", "", nil, []string{topic, "--auth=basic"}, `router: --auth must be one of "none","jwt" but got "basic"`},
		{"validate", "", nil, []string{topic, "--drain=-1s"}, "router: serve: --drain must not be negative"},
		{"bad size", "", nil, []string{topic, "--ring=big"}, `router: --ring: "big" is not a size such as 65536, 64KiB or 256MB`},
		{"default command's flag before another command", "", nil, []string{"--listen=:1", "status"}, `router: flag --listen applies to the default command "serve", not "status"`},
		{"bad variable", "", []string{"POINTSMAN_DRAIN=soon"}, []string{topic}, `router: POINTSMAN_DRAIN: expected duration but got "soon": time: invalid duration "soon"`},
		{"variable is not one of", "", []string{"POINTSMAN_AUTH=basic"}, []string{topic}, `router: POINTSMAN_AUTH: must be one of none, jwt but is "basic"`},
		{"no file", "", nil, []string{topic, "--config=/does/not/exist"}, "router: --config: open /does/not/exist: no such file or directory"},
		{"unknown key", "topic: t\nlistn: :1\n", nil, nil, `router: FILE:2: unknown setting "listn"; the nearest known one is "listen"`},
		{"command's own flag as key", "topic: t\nwait: true\n", nil, nil, `router: FILE:2: unknown setting "wait"; the nearest known one is "auth"`},
		{"key twice", "topic: t\ntopic: u\n", nil, nil, `router: FILE:2: setting "topic" stands on line 1 already`},
		{"bad value in file", "topic: t\ndrain: soon\n", nil, nil, `router: FILE:2: drain: expected duration but got "soon": time: invalid duration "soon"`},
		{"no value in file", "topic:\n", nil, nil, "router: FILE:1: topic: has no value; leave the line out to get the default"},
		{"list for one value", "topic: [a, b]\n", nil, nil, "router: FILE:1: topic: expected one value"},
		{"mapping for a list", "etcd: {a: b}\n", nil, nil, "router: FILE:1: etcd: expected a list of values"},
		{"lists in a list", "topic: t\netcd: [[a]]\n", nil, nil, "router: FILE:2: etcd: line 2: expected a plain value"},
		{"not YAML", "topic: [\n", nil, nil, "router: FILE: yaml: line 1: did not find expected node content"},
		{"not settings", "- a\n", nil, nil, `router: FILE:1: expected settings as "name: value" lines`},
		{"two documents", "topic: t\n---\ntopic: u\n", nil, nil, "router: FILE: more than one YAML document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want, args := tt.want, tt.args
			if tt.file != "" {
				path := writeFile(t, tt.file)
				args = append(args, "--config", path)
				want = strings.Replace(want, "FILE", path, 1)
			}
			var p program
			code, _, errs := run(t, &p, tt.environ, args...)
			if code != options.ExitUsage {
				t.Errorf("exit code = %d, want %d", code, options.ExitUsage)
			}
			if errs != want+"\n" {
				t.Errorf("message\n got %q\nwant %q", errs, want+"\n")
			}
		})
	}
}

func TestEmptyFileIsNoSettings(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "---\n"} {
		var p program
		if code, _, errs := run(t, &p, nil, "--topic=t", "--config", writeFile(t, text)); code != 0 {
			t.Errorf("file %q: exit code %d: %s", text, code, errs)
		}
	}
}

func TestCommandSharesTheSettingsItNames(t *testing.T) {
	var p program
	environ := []string{"POINTSMAN_ETCD=e1:2379", "POINTSMAN_WAIT=true", "POINTSMAN_DRAIN=soon"}
	code, out, errs := run(t, &p, environ, "where", "alice")
	if code != 0 || out != "alice" {
		t.Fatalf("exit code %d, out %q: %s", code, out, errs)
	}
	if got, want := p.Where.Etcd, []string{"e1:2379"}; !reflect.DeepEqual(got, want) {
		t.Errorf("etcd = %q, want %q: a setting that the command names too", got, want)
	}
	if p.Where.Wait {
		t.Error("wait was set by a variable, but it is no setting")
	}
}

func TestFailureIsExitCodeOneAndLateBadOptionTwo(t *testing.T) {
	p := program{Serve: serve{fail: errors.New("kafka is gone")}}
	if code, _, errs := run(t, &p, nil, "--topic=t"); code != options.ExitFailure || errs != "router: kafka is gone\n" {
		t.Errorf("exit code %d, message %q", code, errs)
	}
	p = program{Serve: serve{fail: options.Usagef("--topic: %q does not exist", "t")}}
	if code, _, errs := run(t, &p, nil, "--topic=t"); code != options.ExitUsage || errs != "router: --topic: \"t\" does not exist\n" {
		t.Errorf("exit code %d, message %q", code, errs)
	}
}

func TestMisspeltVariableIsAWarning(t *testing.T) {
	var p program
	environ := []string{
		"POINTSMAN_TOPIC=t", "POINTSMAN_LISTNE=:1", "POINTSMAN_KAFKA=k:9092", "POINTSMAN_ROUTER_SERVICE_HOST=10.0.0.1", "POINTSMAN_FAULT=drop:1",
	}
	if code, _, errs := run(t, &p, environ); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	want := []string{"the variable POINTSMAN_LISTNE is not a setting; is POINTSMAN_LISTEN meant?"}
	if !reflect.DeepEqual(p.Serve.warnings, want) {
		t.Errorf("warnings\n got %q\nwant %q", p.Serve.warnings, want)
	}
}

func TestHelpAndMarkdownAreAsCommitted(t *testing.T) {
	for name, args := range map[string][]string{
		"help.txt":       {"--help"},
		"help-where.txt": {"where", "--help"},
		"version.txt":    {"--version"},
		"flags.md":       {"--help-markdown"},
	} {
		code, out, errs := run(t, &program{}, nil, args...)
		if code != 0 || errs != "" {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
		golden(t, name, out)
	}
	table, err := options.Markdown(router(), &program{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "flags.md", table)
}

// golden compares with testdata, or writes it where UPDATE_GOLDEN is set.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; UPDATE_GOLDEN=1 writes it anew\n got:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]options.Size{
		"0": 0, "65536": 65536, "64KiB": 64 << 10, "64kib": 64 << 10, "1.5GiB": 3 << 29, "256 MB": 256e6, "7B": 7, "1TiB": 1 << 40,
	} {
		var got options.Size
		if err := got.UnmarshalText([]byte(in)); err != nil || got != want {
			t.Errorf("size %q = %d, %v; want %d", in, got, err, want)
		}
		var again options.Size
		if err := again.UnmarshalText([]byte(want.String())); err != nil || again != want {
			t.Errorf("size %d spelled %q reads as %d, %v", want, want, again, err)
		}
	}
	for _, in := range []string{"", "-1", "B", "1PiB", "9999999TiB", "NaN", "1e400", "-0.5KB"} {
		var got options.Size
		if err := got.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("size %q = %d, want an error", in, got)
		}
	}
}

func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(" s3cret \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := options.SecretFile(path).Read(); err != nil || got != " s3cret " {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := options.SecretFile("").Read(); err != nil || got != "" {
		t.Errorf("no file: got %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := options.SecretFile(path).Read(); err == nil {
		t.Error("an empty file is no secret")
	}
	if _, err := options.SecretFile(path + ".none").Read(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
}

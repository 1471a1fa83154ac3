package options_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/options"
)

func FuzzConfigFileIsReadOrRefusedInOneLine(f *testing.F) {
	for _, text := range []string{
		"topic: t\n", "etcd: [a, b]\nlabels: {a: b}\n", "topic: &a t\nauth: *a\n", "---\n", "<<: {topic: t}\n", "? [a]\n: b\n", "topic: !!binary aGk=\n",
	} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "router.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := options.Parse(router(), &program{}, []string{"--topic=t", "--config", path}, options.Env{})
		var usage *options.UsageError
		if err != nil && (!errors.As(err, &usage) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("file %q: %T %q", text, err, err)
		}
	})
}

func FuzzSizeIsReadBackAsItIsSpelled(f *testing.F) {
	for _, text := range []string{"0", "64KiB", "1.5GiB", "9223372036854775807", "8388607TiB", "-1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var size, again options.Size
		if size.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(size.String())); err != nil || size < 0 || again != size {
			t.Errorf("%q is %d, spelled %q, which is %d, %v", text, size, size, again, err)
		}
	})
}

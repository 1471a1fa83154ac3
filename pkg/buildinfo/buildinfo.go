// Package buildinfo tells which build of a program is running: the version that the linker stamped, or what
// the Go toolchain recorded about the source tree when nothing was stamped.
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version is set by the linker and by nothing else:
//
//	go build -ldflags "-X github.com/pointsmanhq/pointsman/pkg/buildinfo.version=v1.2.3"
var version string

// Info describes a build.
type Info struct {
	Version  string `json:"version"`            // the stamped version, else the module's or the revision's, else "devel"
	Revision string `json:"revision,omitempty"` // version control's full revision, when the toolchain recorded one
	Time     string `json:"time,omitempty"`     // the revision's time, RFC 3339
	Modified bool   `json:"modified,omitempty"` // the tree had changes that were not committed
	Go       string `json:"go"`                 // the toolchain, for instance "go1.26.8"
	Platform string `json:"platform"`           // for instance "linux/amd64"
}

// Read describes the running program.
func Read() Info {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		bi = &debug.BuildInfo{}
	}
	return describe(version, bi)
}

func describe(stamped string, bi *debug.BuildInfo) Info {
	info := Info{
		Version:  stamped,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Revision = s.Value
		case "vcs.time":
			info.Time = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	if info.Version == "" {
		info.Version = fallback(bi.Main.Version, info)
	}
	return info
}

// fallback names a build that nobody stamped: the module version of `go install module@version`, else the
// revision. A workspace build's module version is "(devel)", which names nothing.
func fallback(module string, info Info) string {
	if module != "" && module != "(devel)" {
		return module
	}
	if info.Revision == "" {
		return "devel"
	}
	v := "devel-" + info.Revision[:min(12, len(info.Revision))]
	if info.Modified {
		v += "-dirty"
	}
	return v
}

// String is what `version` prints: one line.
func (i Info) String() string {
	var b strings.Builder
	b.WriteString(i.Version)
	if i.Revision != "" && !strings.Contains(i.Version, i.Revision[:min(7, len(i.Revision))]) {
		fmt.Fprintf(&b, " (%s)", i.Revision[:min(12, len(i.Revision))])
	}
	if i.Time != "" {
		fmt.Fprintf(&b, " of %s", i.Time)
	}
	fmt.Fprintf(&b, ", %s %s", i.Go, i.Platform)
	return b.String()
}

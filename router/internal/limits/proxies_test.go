package limits

import (
	"net/http"
	"testing"
)

func TestClientsAddressBehindProxies(t *testing.T) {
	h := func(pairs ...string) http.Header {
		out := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			out.Add(pairs[i], pairs[i+1])
		}
		return out
	}
	trusted := []string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7"}
	for _, tt := range []struct {
		name   string
		header string // that the proxies write
		peer   string
		got    http.Header
		want   string
	}{
		{"no proxy", "", "203.0.113.9:1", nil, "203.0.113.9"},
		{"a stranger's word", "", "203.0.113.9:1", h(ForwardedFor, "198.51.100.1"), "203.0.113.9"},
		{"one proxy", "", "10.1.2.3:1", h(ForwardedFor, "198.51.100.1"), "198.51.100.1"},
		{"a proxy alone", "", "192.0.2.7:1", h(ForwardedFor, "198.51.100.1"), "198.51.100.1"},
		{"its neighbour", "", "192.0.2.8:1", h(ForwardedFor, "198.51.100.1"), "192.0.2.8"},
		{"two proxies", "", "10.1.2.3:1", h(ForwardedFor, "198.51.100.1, 10.9.9.9"), "198.51.100.1"},
		{"what the client itself wrote", "", "10.1.2.3:1", h(ForwardedFor, "127.0.0.1, 198.51.100.1"), "198.51.100.1"},
		{"in several lines", "", "10.1.2.3:1", h(ForwardedFor, "127.0.0.1", ForwardedFor, "198.51.100.1,10.0.0.1"), "198.51.100.1"},
		{"only proxies", "", "10.1.2.3:1", h(ForwardedFor, "10.0.0.7, 10.0.0.1"), "10.0.0.7"},
		{"nothing", "", "10.1.2.3:1", nil, "10.1.2.3"},
		{"nonsense", "", "10.1.2.3:1", h(ForwardedFor, "unknown"), "10.1.2.3"},
		{"nonsense before a proxy", "", "10.1.2.3:1", h(ForwardedFor, "198.51.100.1, what, 10.0.0.2"), "10.0.0.2"},
		{"with ports", "", "10.1.2.3:1", h(ForwardedFor, "198.51.100.1:4711"), "198.51.100.1"},
		{"IPv6", "", "[2001:db8::1]:1", h(ForwardedFor, "2001:470::5"), "2001:470::5"},
		{"IPv6 with brackets", "", "[2001:db8::1]:1", h(ForwardedFor, "[2001:470::5]:77"), "2001:470::5"},
		{"IPv4 in IPv6", "", "[::ffff:10.1.2.3]:1", h(ForwardedFor, "::ffff:198.51.100.1"), "198.51.100.1"},
		{"another header than theirs", "", "10.1.2.3:1", h(Forwarded, "for=127.0.0.1", RealIP, "127.0.0.2"), "10.1.2.3"},
		{"Forwarded", "forwarded", "10.1.2.3:1", h(Forwarded, `for=127.0.0.1, proto=https;For="[2001:470::5]:77";by=10.0.0.1`), "2001:470::5"},
		{"Forwarded, hidden", Forwarded, "10.1.2.3:1", h(Forwarded, "for=_secret"), "10.1.2.3"},
		{"Forwarded, believed alone", Forwarded, "10.1.2.3:1", h(ForwardedFor, "127.0.0.1", Forwarded, "for=198.51.100.1"), "198.51.100.1"},
		{"X-Real-IP", RealIP, "10.1.2.3:1", h(RealIP, "127.0.0.1", RealIP, "198.51.100.1"), "198.51.100.1"},
		{"no address at all", "", "@", nil, "invalid IP"},
	} {
		p, err := ParseProxies(trusted, tt.header)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{RemoteAddr: tt.peer, Header: tt.got}
		if got := p.Client(r).String(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestProxiesThatMeanNothingAreRefused(t *testing.T) {
	for _, n := range []string{"everybody", "10.0.0.0/33", "::ffff:0.0.0.0/64", ""} {
		if _, err := ParseProxies([]string{n}, ""); err == nil {
			t.Errorf("%q is taken", n)
		}
	}
	if _, err := ParseProxies(nil, "X-Client"); err == nil {
		t.Error("a header that nobody writes is taken")
	}
}

func FuzzClient(f *testing.F) {
	f.Add("198.51.100.1, 10.0.0.1", "for=1.2.3.4")
	f.Add("[::1", `for="[`)
	f.Fuzz(func(t *testing.T, forwardedFor, forwarded string) {
		for _, header := range []string{ForwardedFor, Forwarded, RealIP} {
			p, err := ParseProxies([]string{"10.0.0.0/8"}, header)
			if err != nil {
				t.Fatal(err)
			}
			r := &http.Request{RemoteAddr: "10.0.0.9:1", Header: http.Header{}}
			r.Header.Set(ForwardedFor, forwardedFor)
			r.Header.Set(Forwarded, forwarded)
			r.Header.Set(RealIP, forwardedFor)
			if a := p.Client(r); !a.IsValid() || a.Zone() != "" {
				t.Errorf("%q, %q: %v", forwardedFor, forwarded, a)
			}
		}
	})
}

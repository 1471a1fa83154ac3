// Package browser tries the playground's page in a real Chromium. Its tests run where POINTSMAN_BROWSER is set, over
// the programs in the folder that POINTSMAN_BIN names (make test-browser).
package browser

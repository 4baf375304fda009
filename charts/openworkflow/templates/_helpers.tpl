{{- define "openworkflow.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "openworkflow.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "openworkflow.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "openworkflow.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "openworkflow.operatorName" -}}
{{- printf "%s-operator" (include "openworkflow.fullname" .) -}}
{{- end -}}

{{- define "openworkflow.serviceAccountName" -}}
{{- default (include "openworkflow.operatorName" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Labels that select; a Deployment can never change them. */}}
{{- define "openworkflow.selectorLabels" -}}
app.kubernetes.io/name: {{ include "openworkflow.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "openworkflow.labels" -}}
{{ include "openworkflow.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: openworkflow
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "image" .Values.image) */}}
{{- define "openworkflow.image" -}}
{{- $registry := default .root.Values.image.registry (include "openworkflow.globalRegistry" .root) -}}
{{- $name := printf "%s/%s" $registry .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Of an umbrella chart: one registry for all images. */}}
{{- define "openworkflow.globalRegistry" -}}
{{- dig "imageRegistry" "" (default dict .Values.global) | default "" | trimSuffix "/" -}}
{{- end -}}

{{/* The development PostgreSQL's, whose value has its registry in it, as Docker's own need not. */}}
{{- define "openworkflow.postgresImage" -}}
{{- $registry := include "openworkflow.globalRegistry" . -}}
{{- if $registry -}}
{{- printf "%s/%s" $registry (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" .Values.devPostgres.image "") -}}
{{- else -}}
{{- .Values.devPostgres.image -}}
{{- end -}}
{{- end -}}

{{/* The chart's own and those of an umbrella chart, which may be names or maps with a name. */}}
{{- define "openworkflow.pullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.imagePullSecrets (dig "imagePullSecrets" list (default dict .Values.global) | default list) -}}
{{- $names = append $names (ternary . (get (ternary dict . (kindIs "string" .)) "name") (kindIs "string" .)) -}}
{{- end -}}
{{- range uniq $names }}
- name: {{ . | quote }}
{{- end -}}
{{- end -}}

{{/* What every pod of the chart satisfies: the Pod Security standard `restricted`. */}}
{{- define "openworkflow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* (dict "root" $ "user" 10001) */}}
{{- define "openworkflow.podSecurity" -}}
runAsNonRoot: true
{{- if .root.Values.fixedUser }}
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "openworkflow.placement" -}}
{{- with include "openworkflow.pullSecrets" . | trim }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "openworkflow.hasDevPostgres" -}}
{{- if and .Values.devPostgres.enabled (not .Values.database.existingSecret) -}}true{{- end -}}
{{- end -}}

{{- define "openworkflow.postgresName" -}}
{{- printf "%s-postgres" (include "openworkflow.fullname" .) -}}
{{- end -}}

{{- define "openworkflow.databaseSecret" -}}
{{- default (printf "%s-database" (include "openworkflow.fullname" .)) .Values.database.existingSecret -}}
{{- end -}}

{{- define "openworkflow.databaseKey" -}}
{{- ternary .Values.database.secretKey "DATABASE_URL" (ne .Values.database.existingSecret "") -}}
{{- end -}}

{{- define "openworkflow.dashboardName" -}}
{{- printf "%s-dashboard" (include "openworkflow.fullname" .) -}}
{{- end -}}

{{- define "openworkflow.validateDashboard" -}}
{{- $proxy := .Values.dashboard.proxy -}}
{{- $openid := .Values.dashboard.openid | default dict -}}
{{- if not (or .Values.dashboard.tokens.existingSecret $proxy.header $openid.issuer) -}}
{{- fail "dashboard.enabled: say who may come in: name a Secret in dashboard.tokens.existingSecret, such as of `kubectl create secret generic dashboard --from-literal=OPENWORKFLOW_DASHBOARD_TOKENS=viewer:$(openssl rand -hex 20)`, a provider in dashboard.openid, or a proxy in dashboard.proxy" -}}
{{- end -}}
{{- if ne (empty $proxy.header) (empty $proxy.from) -}}
{{- fail "dashboard.proxy: header and from go together, or anybody could say in it who they are" -}}
{{- end -}}
{{- if gt (len (compact (list $proxy.header .Values.dashboard.tokens.existingSecret $openid.issuer))) 1 -}}
{{- fail "dashboard.proxy.header, dashboard.openid.issuer and dashboard.tokens.existingSecret: name one of them" -}}
{{- end -}}
{{- if and $openid.issuer (not (and $openid.client $openid.url $openid.existingSecret $openid.roles)) -}}
{{- fail "dashboard.openid: issuer needs client, url, existingSecret (the client's secret) and roles, such as `roles: {sre: admin, \"*\": viewer}`" -}}
{{- end -}}
{{- if not (or .Values.dashboard.existingSecret .Values.database.existingSecret (include "openworkflow.hasDevPostgres" .)) -}}
{{- fail "dashboard.enabled: name its database in dashboard.existingSecret or database.existingSecret" -}}
{{- end -}}
{{- end -}}

{{/* Combinations that cannot work, told before anything is installed. */}}
{{- define "openworkflow.validate" -}}
{{- if and (eq .Values.rbac.secrets "namespaced") (not .Values.operator.namespaces) (not .Values.rbac.secretNamespaces) -}}
{{- fail "rbac.secrets is `namespaced`: name the namespaces in rbac.secretNamespaces or operator.namespaces" -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false: name an existing one in serviceAccount.name" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "metrics.serviceMonitor.enabled: this cluster has no ServiceMonitor (monitoring.coreos.com/v1); install the Prometheus operator first, or scrape the Service" -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "metrics.prometheusRule.enabled: this cluster has no PrometheusRule (monitoring.coreos.com/v1); install the Prometheus operator first, or load alerts/openworkflow.yaml yourself" -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not (.Files.Get "alerts/openworkflow.yaml")) -}}
{{- fail "metrics.prometheusRule.enabled: this chart was packed without alerts/openworkflow.yaml" -}}
{{- end -}}
{{- $name := include "openworkflow.fullname" . -}}
{{- if and .Release.IsInstall (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name)) -}}
{{- fail (printf "no Service can be named after %s: set fullnameOverride to a name of a-z, 0-9 and -, that begins with a letter" $name) -}}
{{- end -}}
{{- include "openworkflow.validateCluster" . -}}
{{- end -}}

{{/* What would fail in the middle of an install; `helm template` sees no cluster and asks nothing. */}}
{{- define "openworkflow.validateCluster" -}}
{{- if .Values.crds.install -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "workflownamespaces.openworkflow.dev" -}}
{{- $notes := dig "metadata" "annotations" dict (default dict $crd) | default dict -}}
{{- $owner := get $notes "meta.helm.sh/release-name" -}}
{{- $home := get $notes "meta.helm.sh/release-namespace" -}}
{{- if and $owner (or (ne $owner .Release.Name) (ne $home .Release.Namespace)) -}}
{{- $us := printf "meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s" .Release.Name .Release.Namespace -}}
{{- fail (printf "the cluster has one WorkflowNamespace CRD, and it belongs to the release %s in namespace %s: install this one with --set crds.install=false. If that release is gone, hand it over first: kubectl annotate crd workflownamespaces.openworkflow.dev --overwrite %s" $owner $home $us) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.rbac.create (lookup "v1" "Namespace" "" "default") -}}
{{- $named := list -}}
{{- range uniq (concat .Values.operator.namespaces (ternary .Values.rbac.secretNamespaces list (eq .Values.rbac.secrets "namespaced"))) -}}
{{- if not (or (eq . $.Release.Namespace) (lookup "v1" "Namespace" "" .)) -}}
{{- $named = append $named . -}}
{{- end -}}
{{- end -}}
{{- if $named -}}
{{- fail (printf "there is no namespace %s, which operator.namespaces or rbac.secretNamespaces names: make it first, since the operator's Roles go there" (join ", " $named)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

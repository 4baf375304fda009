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
app.kubernetes.io/name: {{ include "openworkflow.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
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
{{- $name := printf "%s/%s" .root.Values.image.registry .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What every pod of the chart satisfies: the Pod Security standard `restricted`. */}}
{{- define "openworkflow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "openworkflow.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "openworkflow.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
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
{{- end -}}

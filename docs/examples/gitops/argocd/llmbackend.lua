-- Health of an LLMBackend. Only what a person must mend is Degraded: what comes back by itself is Progressing.
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "waiting for nexus-operator to see it"}
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
if status.state == "Suspended" then
  return {status = "Suspended", message = "spec.suspend is set"}
end
local stalled = conditions["Stalled"]
if stalled ~= nil and stalled.status == "True" then
  return {status = "Degraded", message = stalled.reason .. ": " .. (stalled.message or "")}
end
local ready = conditions["Ready"]
if ready ~= nil and ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if ready ~= nil then
  return {status = "Progressing", message = ready.reason .. ": " .. (ready.message or "")}
end
return {status = "Progressing", message = "waiting for nexus-operator to judge it"}

# Installs multipath I/O (MPIO) on Windows Server. It is there after a restart, which Vagrant does; then
# windows-mpio-claim.ps1 follows.
$ErrorActionPreference = 'Stop'

if (-not (Get-WindowsFeature -Name Multipath-IO).Installed) {
    Install-WindowsFeature -Name Multipath-IO -IncludeManagementTools | Format-List -Property 'Success', 'RestartNeeded'
}
